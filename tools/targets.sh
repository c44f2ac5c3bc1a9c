#!/usr/bin/env bash
# What `deepmaker deploy` needs besides Python packages, on Debian and Ubuntu: tools/targets.sh PYTHON
#
# An Arm emulator and the libraries that programs find in it, a Vulkan driver that needs no GPU, a
# C++ compiler for the simulation of an FPGA; and IREE's runtime for aarch64, of the version that
# PYTHON has for this machine, unpacked where the arm target looks for it.
set -euo pipefail
python="${1:-python3}"
"$python" -m deepmaker_jax.backends  # first: it ends here without the packages of PYTHON

packages=(g++ libc6-arm64-cross libstdc++6-arm64-cross mesa-vulkan-drivers qemu-user)

if ! dpkg --status "${packages[@]}" > /dev/null 2>&1; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update --quiet=2
  "${as_root[@]}" apt-get install --yes --quiet=2 "${packages[@]}"
fi

