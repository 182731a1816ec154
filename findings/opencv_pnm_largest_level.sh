#!/usr/bin/env bash
# OpenCV 4.12.0.88, Pillow 12.3.0: PGM states its largest level, and white is that level. Sensors of 10 and 12 bits are written
# so. OpenCV leaves it out of account: of 0 511 1023 (largest 1023) IMREAD_COLOR makes 0 1 3, nearly black, and of 0 50 100 (largest
# 100) 0 50 100. Pillow scales: 0 32735 65535, and 0 128 255.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" opencv-python-headless==4.12.0.88 pillow==12.3.0 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import io

import cv2
import numpy as np
from PIL import Image

read = {}
for largest, dtype in ((1023, ">u2"), (100, "u1")):
    levels = np.array([0, largest // 2, largest]).astype(dtype)
    data = f"P5\n3 1\n{largest}\n".encode() + levels.tobytes()
    opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[0, :, 0].tolist()
    pillow = np.asarray(Image.open(io.BytesIO(data)))[0].tolist()
    read[largest] = (opencv, pillow)
    print("largest level", largest, "OpenCV", opencv, "Pillow", pillow)
assert read == {1023: ([0, 1, 3], [0, 32735, 65535]), 100: ([0, 50, 100], [0, 128, 255])}, read
print("as seen before")
PYTHON_CODE
