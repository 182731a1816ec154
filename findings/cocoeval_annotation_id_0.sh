#!/usr/bin/env bash
# pycocotools 2.0.10: a ground truth of one annotation, and a prediction that is its very mask. Where the annotation's id is 1 the AP
# is 1; where it is 0, with all else the same, the AP is 0: COCOeval marks what a prediction matches by the annotation's id, and reads 0
# as "nothing matched".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" pycocotools==2.0.10 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import contextlib
import io

import numpy as np
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(annotation_id):
    square = np.zeros((40, 40), np.uint8, order="F")
    square[5:25, 5:25] = 1
    run_lengths = mask_tools.encode(square)
    run_lengths["counts"] = run_lengths["counts"].decode()
    annotation = {"id": annotation_id, "image_id": 1, "category_id": 1, "segmentation": run_lengths, "iscrowd": 0}
    annotation |= {"area": 400, "bbox": [5, 5, 20, 20]}
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 1, "width": 40, "height": 40}],
        "categories": [{"id": 1, "name": "roof"}],
        "annotations": [annotation],
    }
    truth.createIndex()
    prediction = {"image_id": 1, "category_id": 1, "segmentation": run_lengths, "score": 0.9}
    evaluation = COCOeval(truth, truth.loadRes([prediction]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


with contextlib.redirect_stdout(io.StringIO()):
    precisions = average_precision(0), average_precision(1)
print("AP with id 0:", precisions[0], " with id 1:", precisions[1])
assert precisions == (0.0, 1.0), precisions
print("as seen before")
PYTHON_CODE
