#!/usr/bin/env bash
# pytorch-ignite 0.5.5: a class that occurs neither in the ground truth nor in the predictions has an IoU of 0 in IoU and mIoU (and a
# Dice of 0), which lowers the mean; MMSegmentation and torchmetrics leave it out. Labels that are all right give
# an mIoU of 2/21 where two of 21 classes occur, as in the first images of an evaluation or in a subset. Neither docstring says so, and
# ignore_index takes a single class. Pixels of label 255 are left out, as one expects.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" pytorch-ignite==0.5.5 torch==2.14.1 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import torch
from ignite.metrics import ConfusionMatrix, DiceCoefficient, IoU, mIoU

CLASSES = 21
truth = torch.zeros(1, 8, 8, dtype=torch.long)
truth[:, :4] = 1
scores = torch.nn.functional.one_hot(truth, CLASSES).permute(0, 3, 1, 2).float()  # every pixel is right
truth[:, 0] = 255


def computed(metric_class):
    confusion_matrix = ConfusionMatrix(CLASSES)
    metric = metric_class(confusion_matrix)
    confusion_matrix.update((scores, truth))
    return metric.compute()


iou = computed(IoU)
dice = computed(DiceCoefficient)
mean_iou = computed(mIoU).item()
print("IoU", iou.tolist())
print("mIoU", mean_iou)
assert torch.allclose(iou[:2], torch.ones(2, dtype=iou.dtype)) and bool((iou[2:] == 0).all()), iou
assert bool((dice[2:] == 0).all()), dice
assert abs(mean_iou - 2 / CLASSES) < 1e-9, mean_iou
PYTHON_CODE
