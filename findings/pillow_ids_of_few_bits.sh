#!/usr/bin/env bash
# Pillow 12.3.0, rasterio 1.4.4: a mask of ids in 2 or 4 bits of grey (GDAL's NBITS; small labels are often packed so).
# Pillow spreads the levels over 0..255, as for a picture: ids 0 1 2 3 become 0 85 170 255, and 4 bits times 17, which are
# valid ids of a dataset with many classes. Where white is zero (MINISWHITE) they are turned round, in 8 bits, too: id 1 is 254.
# A palette keeps its ids.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" pillow==12.3.0 rasterio==1.4.4 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import numpy as np
import rasterio
from PIL import Image

ids = np.array([[0, 1, 2, 3]], np.uint8)
read = {}
for name, options in {
    "2 bits": dict(nbits=2), "4 bits": dict(nbits=4), "8 bits": {}, "8 bits, white is zero": dict(photometric="MINISWHITE"),
}.items():
    with rasterio.open("ids.tif", "w", driver="GTiff", count=1, height=1, width=4, dtype="uint8", **options) as dataset:
        dataset.write(ids[None])
    with rasterio.open("ids.tif") as dataset:
        assert (dataset.read(1) == ids).all()
    read[name] = np.asarray(Image.open("ids.tif")).tolist()[0]
image = Image.fromarray(ids).convert("P")
image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
image.save("palette.png", bits=2)
read["palette of 2 bits"] = np.asarray(Image.open("palette.png")).tolist()[0]
print("ids 0 1 2 3 are read by Pillow as", read)
assert read == {
    "2 bits": [0, 85, 170, 255], "4 bits": [0, 17, 34, 51], "8 bits": [0, 1, 2, 3],
    "8 bits, white is zero": [255, 254, 253, 252], "palette of 2 bits": [0, 1, 2, 3],
}, read
print("as seen before")
PYTHON_CODE
