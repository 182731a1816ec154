#!/usr/bin/env bash
# transformers 5.24.0: BeitImageProcessor and DPTImageProcessor resize label maps as they resize pictures, with bicubic interpolation.
# Between two classes there are then labels of classes that the map does not have, also beyond the largest (0 and 20: 2, 18 and 21).
# SegFormer's, MobileViT's and MobileNetV2's processors take the nearest label. The variants on Pillow are run here, which need no
# PyTorch; those on torchvision give the same labels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" transformers==5.24.0 pillow==12.0.0 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import numpy as np
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

photograph = np.zeros((8, 8, 3), np.uint8)
label_map = np.zeros((8, 8), np.uint8)
label_map[:, 4:] = 20


def labels_after_resizing(processor_class):
    processor = processor_class(size={"height": 12, "width": 12}, do_center_crop=False)
    labels = processor(images=photograph, segmentation_maps=label_map)["labels"][0]
    return np.unique(labels).tolist()


interpolated = [0, 2, 18, 20, 21]
expected = {
    BeitImageProcessorPil: interpolated,
    DPTImageProcessorPil: interpolated,
    SegformerImageProcessorPil: [0, 20],
    MobileViTImageProcessorPil: [0, 20],
    MobileNetV2ImageProcessorPil: [0, 20],
}
for processor_class, labels in expected.items():
    seen = labels_after_resizing(processor_class)
    print(processor_class.__name__, seen)
    assert seen == labels, (processor_class.__name__, seen)
PYTHON_CODE
