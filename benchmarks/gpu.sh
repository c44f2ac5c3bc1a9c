#!/usr/bin/env bash
# The scaling figures on an accelerator, without a network: each part takes under 10 minutes.
#
#     benchmarks/gpu.sh OUT [PART ...]
#
# OUT is a folder for figures and pictures; without a PART all are measured, one after the other.
# A part that fails or takes longer is told, what it had measured is kept, and the others go on; the
# exit code is then 1. Bad input, or no accelerator for JAX: 2, and nothing is measured.
set -uo pipefail
parts="lanes devices batch depth width profile"
fail() { echo "$1" >&2; exit 2; }
[ $# -ge 1 ] || fail "usage: benchmarks/gpu.sh OUT [${parts// /|} ...]"
mkdir -p "$1" || fail "OUT (=$1) must be a folder that can be written"
out="$(cd "$1" && pwd)"
shift
# shellcheck disable=SC2086 # each word is a part
[ $# -ge 1 ] || set -- $parts
for part in "$@"; do
  [[ " $parts " == *" $part "* ]] || fail "PART (=$part) must be one of: $parts"
done
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python="${PYTHON:-.venv/bin/python}"
backend="$("$python" -c 'import jax; print(jax.default_backend())' 2>"$out/backend.log")" \
  || fail "JAX does not start: see $out/backend.log"
[ "$backend" != cpu ] \
  || fail "JAX (backend=cpu) must see an accelerator: install its jaxlib, as 'jax[cuda12]'"
failed=0
for part in "$@"; do
  timeout 590 "$python" -m benchmarks.scaling --part "$part" --out "$out/scaling.json" \
    >"$out/$part.log" 2>&1 || { echo "$part failed: see $out/$part.log" >&2; failed=1; }
done
exit "$failed"
