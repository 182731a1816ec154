#!/usr/bin/env bash
# transformers 5.24.0: with do_reduce_labels (0 is no class, all others move down by one) the processors of MaskFormer and Mask2Former
# move the ignored label, too: pixels of ignore_index 255 become a class 254 with a mask of its own, which a model is then trained to
# find. SegFormer's and BEiT's processors leave 255 at 255. Without do_reduce_labels 255 is left out, as one expects. Run here is the
# step that makes masks of a label map, which needs no PyTorch; the whole processors give the same classes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install --quiet --target "$folder/packages" transformers==5.24.0 pillow==12.0.0 numpy==2.2.6
cd "$folder"
PYTHONPATH="$folder/packages" "${PYTHON:-python3}" - <<'PYTHON_CODE'
import numpy as np
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import (
    convert_segmentation_map_to_binary_masks as masks_of_mask2former,
)
from transformers.models.maskformer.image_processing_pil_maskformer import (
    convert_segmentation_map_to_binary_masks as masks_of_maskformer,
)
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

photograph = np.zeros((8, 8, 3), np.uint8)
label_map = np.zeros((8, 8), np.uint8)  # 0: no class
label_map[:, 2:4] = 1
label_map[:, 4:6] = 2
label_map[:, 6:] = 255  # not annotated


def classes_with_a_mask(make_masks, do_reduce_labels):
    _, labels = make_masks(label_map, ignore_index=255, do_reduce_labels=do_reduce_labels)
    return [int(label) for label in labels]


for make_masks in (masks_of_maskformer, masks_of_mask2former):
    reduced = classes_with_a_mask(make_masks, do_reduce_labels=True)
    as_they_are = classes_with_a_mask(make_masks, do_reduce_labels=False)
    print(make_masks.__module__.split(".")[-2], "reduced", reduced, "as they are", as_they_are)
    assert (reduced, as_they_are) == ([0, 1, 254], [0, 1, 2]), (reduced, as_they_are)
for processor_class in (BeitImageProcessorPil, SegformerImageProcessorPil):
    processor = processor_class(do_resize=False, do_center_crop=False, do_reduce_labels=True)
    labels = processor(images=photograph, segmentation_maps=label_map)["labels"][0]
    seen = np.unique(labels).tolist()
    print(processor_class.__name__, "reduced", seen)
    assert seen == [0, 1, 255], (processor_class.__name__, seen)
PYTHON_CODE
