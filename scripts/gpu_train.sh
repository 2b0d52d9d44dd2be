#!/usr/bin/env bash
# Trains a recipe on a machine that is reached by single calls of limited length: run it again until it says that it is done.
#
#   scripts/gpu_train.sh RECIPE RUN_FOLDER [MINUTES] [KEEP]
#
# RECIPE      a name (imcsr-mt-er-lyso) or a YAML file
# RUN_FOLDER  the run; pairs are made there first, by all cores, and reused
# MINUTES     how long this call may take (default 9); it ends with a checkpoint
# KEEP        a folder that outlives the machine: what a later call on a fresh machine needs is put there in pieces of at
#             most 15 MiB, and fetched from there if RUN_FOLDER has no checkpoint; pairs are made anew, and are the same
#
# Needs no network and no installation of livesr: python3 (or $PYTHON) with torch, numpy, scipy, pyyaml, typer, rich, pydantic (and its
# pydantic-core, annotated-types, typing-inspection), pillow and matplotlib. Ends with 0 when the training is over, with 75 when it has to be called again.
set -euo pipefail
recipe=$1 run=$2 minutes=${3:-9} keep=${4:-}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$run"

if [ -n "$keep" ] && [ -f "$keep/run.tar.00" ] && [ ! -f "$run/checkpoint.pt" ]; then
  cat "$keep"/run.tar.* | tar -C "$run" -xf -
fi

extra=()
[ -n "${TRAIN_ARGUMENTS:-}" ] && read -r -a extra <<<"$TRAIN_ARGUMENTS"
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
result=$("$python" -m livesr train --recipe "$recipe" --out "$run" --slice "$minutes" --workers "$cores" --json "${extra[@]}")
echo "$result"

if [ -n "$keep" ]; then
  mkdir -p "$keep"
  # Never without a whole copy: the new one takes the old one's place when it is complete.
  rm -rf "$keep/new" && mkdir "$keep/new"
  (cd "$run" && find . -maxdepth 1 -type f ! -name '*.part' -print0 | tar --null -T - -cf -) |
    split -b 15M -d - "$keep/new/run.tar."
  rm -f "$keep"/run.tar.*
  mv "$keep"/new/run.tar.* "$keep" && rmdir "$keep/new"
fi
case $result in *'"finished": true'*) echo "The training is over." ;; *) echo "Call again to go on." && exit 75 ;; esac
