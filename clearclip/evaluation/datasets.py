"""The datasets that MMSegmentation lacks: names and colours are MMSegmentation's own, or the makers'."""

from __future__ import annotations

from mmseg.datasets import (
    BaseSegDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)
from mmseg.registry import DATASETS

from clearclip import miniature


@DATASETS.register_module()
class PascalVOC20Dataset(PascalVOCDataset):
    """PASCAL VOC 2012 without its background: label 0 is ignored, 1..20 become 0..19."""

    METAINFO = dict(
        classes=PascalVOCDataset.METAINFO["classes"][1:],
        palette=PascalVOCDataset.METAINFO["palette"][1:],
    )

    def __init__(self, ann_file: str, reduce_zero_label: bool = True, **kwargs):
        super().__init__(ann_file=ann_file, reduce_zero_label=reduce_zero_label, **kwargs)


@DATASETS.register_module()
class PascalContext60Dataset(PascalContextDataset):
    """PASCAL Context with background (label 0)."""


@DATASETS.register_module()
class PascalContext59Dataset(PascalContextDataset59):
    """PASCAL Context without background: label 0 is ignored, 1..59 become 0..58."""


@DATASETS.register_module()
class COCOObjectDataset(BaseSegDataset):
    """COCO-Object: background (0) and COCO's 80 things (1..80), masks made by ``datasets/cvt_coco_object.py``."""

    METAINFO = dict(
        classes=("background", *COCOStuffDataset.METAINFO["classes"][:80]),
        palette=[[0, 0, 0], *COCOStuffDataset.METAINFO["palette"][:80]],
    )

    def __init__(self, img_suffix: str = ".jpg", seg_map_suffix: str = "_instanceTrainIds.png", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class OpenEarthMapDataset(BaseSegDataset):
    """OpenEarthMap: eight classes of land cover, and what has none of them (0)."""

    METAINFO = dict(
        classes=(
            "background", "bareland", "rangeland", "developed space", "road", "tree", "water", "agriculture land",
            "building",
        ),
        palette=[
            [0, 0, 0], [128, 0, 0], [0, 255, 36], [148, 148, 148], [255, 255, 255], [34, 97, 38], [0, 69, 255],
            [75, 181, 73], [222, 31, 7],
        ],
    )  # fmt: skip

    def __init__(self, img_suffix: str = ".tif", seg_map_suffix: str = ".tif", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class UAVidDataset(BaseSegDataset):
    """UAVid as the remote-sensing papers prepare it: ids in place of colours, moving and static cars are one class."""

    METAINFO = dict(
        classes=("background clutter", "building", "road", "car", "tree", "low vegetation", "human"),
        palette=[
            [0, 0, 0], [128, 0, 0], [128, 64, 128], [192, 0, 192], [0, 128, 0], [128, 128, 0], [64, 64, 0],
        ],
    )  # fmt: skip

    def __init__(self, img_suffix: str = ".png", **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class UDD5Dataset(BaseSegDataset):
    """Urban Drone Dataset, five classes."""

    METAINFO = dict(
        classes=("vegetation", "building", "road", "vehicle", "other"),
        palette=[[107, 142, 35], [102, 102, 156], [128, 64, 128], [0, 0, 142], [0, 0, 0]],
    )

    def __init__(self, img_suffix: str = ".JPG", **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class VDDDataset(BaseSegDataset):
    """Varied Drone Dataset."""

    METAINFO = dict(
        classes=("other", "wall", "road", "vegetation", "vehicle", "roof", "water"),
        palette=[
            [0, 0, 0], [128, 0, 0], [128, 64, 128], [0, 128, 0], [64, 0, 128], [192, 192, 128], [0, 0, 128],
        ],
    )  # fmt: skip

    def __init__(self, img_suffix: str = ".JPG", **kwargs):
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class MiniatureDataset(BaseSegDataset):
    """The bundled benchmark of drawn scenes (see ``clearclip/miniature``)."""

    METAINFO = dict(classes=tuple(miniature.CLASSES), palette=[list(colour) for colour in miniature.PALETTE])

    def __init__(self, img_suffix: str = ".png", seg_map_suffix: str = ".png", **kwargs):
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
