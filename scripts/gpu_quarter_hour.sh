#!/usr/bin/env bash
# What a GPU that is at hand for a quarter of an hour is used for: the runtimes are checked and timed, then a recipe is trained for what is left.
#
#   scripts/gpu_quarter_hour.sh OUT [MINUTES] [RECIPE]
#
# OUT      folder for gpu.json, gpu.txt (its last lines are to be pasted into an issue) and training, which a later call goes on with
# MINUTES  how long this call may take (default 15): the checks at most two thirds of it
# RECIPE   as of gpu_train.sh (default imcsr-mt-er-lyso-full)
#
# Needs no network and no installation of livesr. BENCH_ARGUMENTS and TRAIN_ARGUMENTS are passed on. Ends with the exit code of the checks.
set -uo pipefail
out=$1 minutes=${2:-15} recipe=${3:-imcsr-mt-er-lyso-full}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"

extra=()
[ -n "${BENCH_ARGUMENTS:-}" ] && read -r -a extra <<<"$BENCH_ARGUMENTS"
timeout -s INT $((minutes * 40)) "${PYTHON:-python3}" -m livesr bench gpu --out "$out/gpu.json" --resume "${extra[@]}" 2>&1 | tee "$out/gpu.txt"
checked=$?

left=$((minutes - (SECONDS + 89) / 60)) # half a minute to write and to end
[ "$left" -ge 1 ] && "$here/scripts/gpu_train.sh" "$recipe" "${TMPDIR:-/tmp}/livesr-training" "$left" "$out/training"
exit "$checked"
