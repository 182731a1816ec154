"""Label maps in the formats of other programs: COCO, CVAT's mask archive, supervision."""

from clearclip.formats.coco import coco_dataset, mask_polygons, mask_rle
from clearclip.formats.cvat import write_cvat_masks
from clearclip.formats.detections import to_detections

__all__ = ["coco_dataset", "mask_polygons", "mask_rle", "to_detections", "write_cvat_masks"]
