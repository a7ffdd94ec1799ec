#!/usr/bin/env bash
# Runs cells of the grid on a GPU, for ten minutes at most, and leaves a JSON file for each finished one.
#
#   benchmarks/gpu.sh OUT [CELL…]
#
# OUT/grid/NAME.json are the cells; copy them into benchmarks/results/grid/. CELL: which to run, as --only of
# `python -m benchmarks grid` takes them; default all, in the grid's order. What was begun lies in OUT/cache (or
# TTCA_CACHE): the same command goes on with it. TTCA_DATA names the data sets, PYTHON the interpreter, MINUTES a
# shorter time. JOBS cells share the GPU, each with a core of its own; default one for each core.
set -euo pipefail

fail() {
  printf '%s\n' "$1" >&2
  exit 1
}

[[ $# -ge 1 ]] || fail "Expected a folder for the results, got none. Say: benchmarks/gpu.sh OUT [CELL…]"
minutes=${MINUTES:-10}
[[ $minutes =~ ^([1-9]|10)$ ]] || fail "Expected MINUTES from 1 to 10, got $minutes."
jobs=${JOBS:-$(nproc)}
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "Expected JOBS of 1 or more, got $jobs."
[[ -d ${TTCA_DATA:-} ]] || fail "Expected TTCA_DATA to name the folder of data sets, got '${TTCA_DATA:-}'. Set it."
mkdir -p "$1/grid"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
[[ -x $(command -v "$python") ]] || fail "Expected Python with ttca[bench] at $python, got none. Set PYTHON."
no_gpu="Expected a GPU that PyTorch can use, got none. Run the cells on processors: python -m benchmarks grid --keep"
command -v nvidia-smi >/dev/null || fail "$no_gpu"
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || fail "$no_gpu"

# Cells that are kept already need no run.
find benchmarks/results/grid -name '*.json' -exec cp -n {} "$out/grid/" \; 2>/dev/null || true
before=$(find "$out/grid" -name '*.json' | wc -l)
export TTCA_CACHE=${TTCA_CACHE:-$out/cache}
only=()
[[ $# -eq 0 ]] || only=(--only "$@")
run='
import sys
from pathlib import Path
from benchmarks.__main__ import main
from ttca.streams import run_program
run_program("benchmarks", lambda: main(["grid", *sys.argv[2:], "--threads", "1", "--keep", "--json"], Path(sys.argv[1])))
'
# Half a minute is left for what ends the program.
seconds=$((minutes * 60 - 30))
status=0
timeout --signal=TERM --kill-after=20 "$seconds" "$python" -c "$run" "$out" --jobs "$jobs" "${only[@]}" >"$out/list.json" || status=$?
after=$(find "$out/grid" -name '*.json' | wc -l)
printf '%s cells finished, %s files in %s/grid.\n' "$((after - before))" "$after" "$out" >&2
# 124 and 143: the time was over, as planned.
case $status in
  0 | 124 | 143) ;;
  *) exit "$status" ;;
esac
if [[ $after -eq $before ]]; then
  fail "Expected a finished cell, got none. One that failed is named above; the same command goes on with the others."
fi
