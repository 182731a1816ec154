#!/usr/bin/env bash
# supervision 0.26.1, pycocotools 2.0.10: the polygon along the edges of a square of 20 × 20 pixels. pycocotools rasterises it to these
# 400 pixels, supervision to 441: it fills polygons with their border, which is a row and a column more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" supervision==0.26.1 pycocotools==2.0.10 opencv-python-headless==4.12.0.88 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import numpy as np
import supervision
from pycocotools import mask as mask_tools

polygon = [5, 5, 5, 25, 25, 25, 25, 5]
by_pycocotools = mask_tools.decode(mask_tools.merge(mask_tools.frPyObjects([polygon], 40, 40)))
by_supervision = supervision.polygon_to_mask(np.array(polygon).reshape(-1, 2), (40, 40))
pixels = int(by_pycocotools.sum()), int(by_supervision.sum())
print("pixels by pycocotools", pixels[0], "by supervision", pixels[1])
assert pixels == (400, 441), pixels
print("as seen before")
PYTHON_CODE
