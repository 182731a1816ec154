#!/usr/bin/env bash
# supervision 0.26.1, pycocotools 2.0.10: masks with a hole or of two parts, exported by DetectionDataset.as_coco as ground truth. They
# come out with iscrowd true, which COCO keeps for groups, and COCOeval leaves them out: a perfect prediction of both has no AP at all
# (-1), where the same two masks with iscrowd 0 have 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" supervision==0.26.1 pycocotools==2.0.10 opencv-python-headless==4.12.0.88 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import contextlib
import copy
import io
import json

import numpy as np
import supervision
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
import cv2

masks = np.zeros((2, 100, 100), bool)
masks[0, 10:60, 10:60] = True
masks[0, 25:45, 25:45] = False  # a hole
masks[1, 70:90, 10:40] = masks[1, 70:90, 60:90] = True  # two parts
cv2.imwrite("photo.png", np.zeros((100, 100, 3), np.uint8))
detections = supervision.Detections(
    xyxy=supervision.mask_to_xyxy(masks).astype(float), mask=masks, class_id=np.array([0, 0])
)
dataset = supervision.DetectionDataset(classes=["roof"], images=["photo.png"], annotations={"photo.png": detections})
dataset.as_coco(annotations_path="exported.json")
exported = json.load(open("exported.json"))
crowds = [annotation["iscrowd"] for annotation in exported["annotations"]]


def average_precision(content):
    json.dump(content, open("truth.json", "w"))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO("truth.json")
        image, category = truth.getImgIds()[0], truth.getCatIds()[0]
        results = [
            dict(image_id=image, category_id=category, score=0.9,
                 segmentation={**(code := mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))),
                               "counts": code["counts"].decode()})
            for mask in masks
        ]
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


plain = copy.deepcopy(exported)
for annotation in plain["annotations"]:
    annotation["iscrowd"] = 0
found = (crowds, average_precision(exported), average_precision(plain))
print("iscrowd", found[0], "AP as exported", found[1], "AP with iscrowd 0", found[2])
assert found == ([1, 1], -1.0, 1.0), found
print("as seen before")
PYTHON_CODE
