#!/usr/bin/env bash
# OpenCV 4.12.0.88, rasterio 1.4.4: three bands of 16 bits as GeoTIFF, and of 8 bits as JPEG 2000, by rasterio's defaults.
# GDAL calls the first band grey and gives the others no meaning, and OpenCV's IMREAD_COLOR shows the first band as grey,
# without a word; the same TIFF with photometric="RGB" is in colours. Seen: stored 200 120 40; read 200 200 200, 200 200 200
# and 200 120 40.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" opencv-python-headless==4.12.0.88 rasterio==1.4.4 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import cv2
import numpy as np
import rasterio

bands = np.stack([np.full((32, 32), colour, np.uint8) for colour in (200, 120, 40)])
size = dict(count=3, height=32, width=32)
with rasterio.open("uint16.tif", "w", driver="GTiff", dtype="uint16", **size) as dataset:
    dataset.write(bands.astype(np.uint16) * 257)
with rasterio.open("uint16_rgb.tif", "w", driver="GTiff", dtype="uint16", photometric="RGB", **size) as dataset:
    dataset.write(bands.astype(np.uint16) * 257)
options = dict(QUALITY=100, REVERSIBLE="YES")
with rasterio.open("default.jp2", "w", driver="JP2OpenJPEG", dtype="uint8", **size, **options) as dataset:
    dataset.write(bands)
names = ("uint16.tif", "default.jp2", "uint16_rgb.tif")
read = {name: cv2.imread(name, cv2.IMREAD_COLOR)[0, 0, ::-1].tolist() for name in names}
print("read by OpenCV", cv2.__version__, read)
assert read == {"uint16.tif": [200] * 3, "default.jp2": [200] * 3, "uint16_rgb.tif": [200, 120, 40]}, read
print("as seen before")
PYTHON_CODE
