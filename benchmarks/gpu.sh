#!/usr/bin/env bash
# The scaling figures on an accelerator, without a network: each part takes under 10 minutes.
#
#     benchmarks/gpu.sh OUT [PART ...]
#
# OUT is a folder for figures and pictures; without a PART all are measured, one after the other.
# A part that fails is told and the others go on; the exit code is then 1.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: benchmarks/gpu.sh OUT [lanes|devices|batch|depth|width|profile ...]" >&2; exit 2; }
out="$1"
shift
[ $# -ge 1 ] || set -- lanes devices batch depth width profile
mkdir -p "$out"
python="${PYTHON:-.venv/bin/python}"
failed=0
for part in "$@"; do
  timeout 590 "$python" -m benchmarks.scaling --part "$part" --out "$out/scaling.json" \
    >"$out/$part.log" 2>&1 || { echo "$part failed: see $out/$part.log" >&2; failed=1; }
done
exit "$failed"
