#!/usr/bin/env bash
# OpenCV 4.12.0.88, rasterio 1.4.4 (GDAL 3.10.3): red, green, blue and near infrared, written by rasterio with its defaults.
# GDAL marks the fourth band of 8 bits as unassociated alpha, and OpenCV multiplies the colours by it: where the near infrared is
# 0 the picture is black. Seen: stored 200 120 40, read 200 120 40 where the fourth band is 255, 100 60 20 at 128, 0 0 0 at 0.
# With alpha="NO" the colours are as stored.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" opencv-python-headless==4.12.0.88 rasterio==1.4.4 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import cv2
import numpy as np
import rasterio

colours = np.array([200, 120, 40], np.uint8)
near_infrared = np.array([[255, 128, 0]], np.uint8)
bands = np.stack([*(np.full((1, 3), colour, np.uint8) for colour in colours), near_infrared])
options = dict(driver="GTiff", count=4, height=1, width=3, dtype="uint8")
with rasterio.open("default.tif", "w", **options) as dataset:
    dataset.write(bands)
with rasterio.open("no_alpha.tif", "w", photometric="RGB", alpha="NO", **options) as dataset:
    dataset.write(bands)
with rasterio.open("default.tif") as dataset:
    interpretation = [colour.name for colour in dataset.colorinterp]
read = {name: cv2.imread(f"{name}.tif", cv2.IMREAD_COLOR)[0, :, ::-1].tolist() for name in ("default", "no_alpha")}
print("bands are called", interpretation)
print("read by OpenCV", cv2.__version__, read)
assert interpretation == ["red", "green", "blue", "alpha"]
assert read["default"] == [[200, 120, 40], [100, 60, 20], [0, 0, 0]], read
assert read["no_alpha"] == [[200, 120, 40]] * 3, read
print("as seen before")
PYTHON_CODE
