#!/usr/bin/env bash
# Everything that needs a GPU, in one go: tests, speed in fp16 and bf16, a table. usage: tools/gpu_check.sh [FOLDER]
# The log and the figures go to FOLDER (default outputs/gpu). PYTHON=… takes another Python than the one on the path.
set -u
cd "$(dirname "$0")/.."
folder=${1:-outputs/gpu}
python=${PYTHON:-python}
mkdir -p "$folder"
{
    nvidia-smi
    "$python" -c "import torch, torchvision, open_clip, mmengine, mmseg
print({name: module.__version__ for name, module in list(globals().items()) if hasattr(module, '__version__')})"
    "$python" -m pytest -q -m gpu tests/test_gpu.py
    for precision in fp16 bf16; do
        "$python" tools/benchmark.py --model ViT-B-16 ViT-L-14 --precision "$precision" --images 16 --workers "$(nproc)" \
            --out "$folder/speed_$precision.json"
        "$python" tools/benchmark.py --methods ClearCLIP CLIP MaskCLIP SCLIP GEM --precision "$precision" --sizes coco \
            --images 16 --out "$folder/methods_$precision.json"
    done
    "$python" eval_all.py --miniature --results "$folder/miniature.xlsx"
} 2>&1 | tee "$folder/log.txt"
