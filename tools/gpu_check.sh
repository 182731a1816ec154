#!/usr/bin/env bash
# Everything that needs a GPU, within ten minutes: tests, each method's batch, speed beside the bare encoder, a table.
#
#   tools/gpu_check.sh [FOLDER]              # the log and the figures go to FOLDER (default outputs/gpu)
#   DEVICE=cpu tools/gpu_check.sh [FOLDER]   # tries every command where there is no GPU, on few images
#   PYTHON=python3.11 tools/gpu_check.sh     # another Python than the one on the path
#
# What takes longer than its share of the time is stopped, and the rest goes on. Exit status 1 where something failed.
set -u
cd "$(dirname "$0")/.."
folder=${1:-outputs/gpu}
python=${PYTHON:-python}
device=${DEVICE:-cuda}
images=32
time_factor=1
few_images=()
if [ "$device" = cpu ]; then
    images=1
    time_factor=5
    few_images=(--limit 8)
fi
mkdir -p "$folder"
failures=0

# check SECONDS COMMAND...: run a command for so long at most.
check() {
    local seconds=$1
    shift
    printf '\n== %s\n' "$*"
    timeout "$((seconds * time_factor))" "$@" || {
        printf '== exit status %s: %s\n' "$?" "$*"
        failures=$((failures + 1))
    }
}

check_all() {
    if [ "$device" != cpu ]; then
        check 20 nvidia-smi
    fi
    check 180 "$python" -m pytest -q -m gpu tests/test_gpu.py
    check 200 "$python" tools/gpu_batches.py --device "$device" --images "$images" --seconds "$((150 * time_factor))" \
        --out "$folder/batches.json"
    for precision in auto bf16; do
        check 60 "$python" tools/benchmark.py --device "$device" --model ViT-B-16 --precision "$precision" \
            --images "$images" --sizes coco --repeats 3 --out "$folder/speed_$precision.json"
    done
    check 80 "$python" eval_all.py --miniature --device "$device" --results "$folder/miniature.xlsx" \
        ${few_images[@]+"${few_images[@]}"}
    return $((failures > 0))
}

check_all 2>&1 | tee "$folder/log.txt"
exit "${PIPESTATUS[0]}"
