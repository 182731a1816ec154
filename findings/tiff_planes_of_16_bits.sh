#!/usr/bin/env bash
# Pillow 12.3.0, OpenCV 4.12.0.88, rasterio 1.4.4: red, green and blue of 16 bits, each in a plane of its own (TIFF, photometric RGB,
# planar configuration 2). Pillow reads the planes right where they are compressed, and as if they were pixels where they are not.
# OpenCV's IMREAD_COLOR is right in both; its IMREAD_UNCHANGED in neither. No error, no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" opencv-python-headless==4.12.0.88 pillow==12.3.0 rasterio==1.4.4 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import cv2
import numpy as np
import rasterio
from PIL import Image

levels = np.random.default_rng(0).integers(0, 256, (3, 24, 32)).astype(np.uint16)
picture = np.moveaxis(levels, 0, -1)
right = {}
for compression in ("none", "deflate"):
    with rasterio.open(
        f"{compression}.tif", "w", driver="GTiff", count=3, height=24, width=32, dtype="uint16", photometric="RGB",
        interleave="band", compress=compression,
    ) as dataset:
        dataset.write(levels * 257)
    with rasterio.open(f"{compression}.tif") as dataset:
        assert (dataset.read() == levels * 257).all()
    colour = cv2.imread(f"{compression}.tif", cv2.IMREAD_COLOR)[..., ::-1]
    unchanged = cv2.imread(f"{compression}.tif", cv2.IMREAD_UNCHANGED)[..., ::-1]
    pillow = np.asarray(Image.open(f"{compression}.tif"))
    right[compression] = {
        "OpenCV IMREAD_COLOR": bool((colour == picture).all()),
        "OpenCV IMREAD_UNCHANGED": bool((unchanged == picture * 257).all()),
        "Pillow": bool((pillow == picture).all()),
    }
    print(compression, right[compression])
common = {"OpenCV IMREAD_COLOR": True, "OpenCV IMREAD_UNCHANGED": False}
assert right == {"none": {**common, "Pillow": False}, "deflate": {**common, "Pillow": True}}, right
print("as seen before")
PYTHON_CODE
