#!/usr/bin/env bash
# torchmetrics 1.9.0: segmentation.MeanIoU with per_class=False is said to be the mean over all classes, and is not the mean of the
# values that per_class=True gives. It is the mean over all pairs of an image and a class that occurs in it, so a class counts as often as
# it occurs in images. functional.segmentation.mean_iou averages each image first, a third number; and none of the three is the mIoU of
# segmentation benchmarks, for which intersections and unions are summed over the images (classification.MulticlassJaccardIndex).
# Below, four of 100 images hold a second class, half of which the prediction misses. Summed counts give 0.749, the mean of the values
# of per_class=True 0.749, per_class=False 0.980 and the mean of the function's images 0.989.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" torchmetrics==1.9.0 torch==2.14.1 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.functional.segmentation import mean_iou
from torchmetrics.segmentation import MeanIoU

truth = torch.zeros(100, 8, 8, dtype=torch.long)
prediction = torch.zeros(100, 8, 8, dtype=torch.long)
truth[:4, 0, :4] = 1
prediction[:4, 0, :2] = 1

values_by_class = MeanIoU(num_classes=2, per_class=True, input_format="index")(prediction, truth)
mean_of_the_classes = values_by_class.mean().item()
per_class_false = MeanIoU(num_classes=2, per_class=False, input_format="index")(prediction, truth).item()
mean_of_the_images = mean_iou(prediction, truth, num_classes=2, input_format="index").mean().item()
of_summed_counts = MulticlassJaccardIndex(num_classes=2)(prediction, truth).item()
print("IoU of each class", values_by_class.tolist())
print("mean of these", mean_of_the_classes)
print("per_class=False", per_class_false)
print("functional, mean of the images", mean_of_the_images)
print("of summed intersections and unions", of_summed_counts)

iou_of_class_0 = 60 / 62  # in the four images; 1 in the others
expected_by_class = [(4 * iou_of_class_0 + 96) / 100, 0.5]
expected_over_pairs = (4 * iou_of_class_0 + 96 + 4 * 0.5) / 104
expected_over_images = (4 * (iou_of_class_0 + 0.5) / 2 + 96) / 100
intersections = [((truth == label) & (prediction == label)).sum().item() for label in (0, 1)]
unions = [((truth == label) | (prediction == label)).sum().item() for label in (0, 1)]
expected_of_counts = sum(i / u for i, u in zip(intersections, unions)) / 2
for seen, expected in (
    (mean_of_the_classes, sum(expected_by_class) / 2),
    (per_class_false, expected_over_pairs),
    (mean_of_the_images, expected_over_images),
    (of_summed_counts, expected_of_counts),
):
    assert abs(seen - expected) < 1e-5, (seen, expected)
PYTHON_CODE
