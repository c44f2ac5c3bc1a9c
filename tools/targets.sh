#!/usr/bin/env bash
# What `deepmaker deploy` needs besides Python packages, on Debian and Ubuntu: tools/targets.sh PYTHON
#
# An Arm emulator and the libraries that programs find in it, a Vulkan driver that needs no GPU, a
# C++ compiler for the simulation of an FPGA; and IREE's runtime for aarch64, of the version that
# PYTHON has for this machine, unpacked where the arm target looks for it.
set -euo pipefail
python="${1:-python3}"
packages=(g++ libc6-arm64-cross libstdc++6-arm64-cross mesa-vulkan-drivers qemu-user)

if ! dpkg --status "${packages[@]}" > /dev/null 2>&1; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update --quiet=2
  "${as_root[@]}" apt-get install --yes --quiet=2 "${packages[@]}"
fi

place="${XDG_CACHE_HOME:-$HOME/.cache}/deepmaker-jax/iree-aarch64"
version="$("$python" -c 'import importlib.metadata as m; print(m.version("iree-base-runtime"))')"
if [ ! -d "$place/iree_base_runtime-$version.dist-info" ]; then
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --dest "$folder" "iree-base-runtime==$version"
  rm -rf "$place"
  "$python" -m zipfile --extract "$folder"/*.whl "$place"
  chmod +x "$place/iree/_runtime_libs/iree-run-module"
fi
