"""Label maps, written by annotation tools' own exporters, each by the Python that has the tool.

A tool whose packages do not fit beside this one's is found by an environment variable, such as
``CLEARCLIP_TOOL_DATUMARO=/somewhere/bin/python``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

NAMES = ("background", "road", "car", "tree")
_START = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from PIL import Image as PillowImage
out = Path(sys.argv[1])
ids = np.load(sys.argv[2])
names = ["background", "road", "car", "tree"]
photos = np.random.default_rng(0).integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
def photo(folder, index):
    path = Path(folder, f"a{index}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(photos[index]).save(path)
    return path
"""
_DATUMARO = """
from datumaro.components.annotation import AnnotationType, LabelCategories, Mask
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
items = []
for index, labels in enumerate(ids):
    masks = [Mask(labels == label, label=int(label), id=number + 7, group=number + 7, attributes={"is_crowd": False})
             for number, label in enumerate(np.unique(labels))]
    items.append(DatasetItem(id=f"a{index}", subset="train", media=Image.from_numpy(photos[index]), annotations=masks))
categories = {AnnotationType.label: LabelCategories.from_iterable(names)}
dataset = Dataset.from_iterable(items, categories=categories, media_type=Image)
dataset.export(str(out), FORMAT, save_media=True, **OPTIONS)
"""


def _datumaro(format_name: str, **options: object) -> str:
    return _DATUMARO.replace("FORMAT", repr(format_name)).replace("OPTIONS", repr(options))


#: The package of each export's tool, and what it runs.
EXPORTS = {
    "datumaro_voc": ("datumaro", _datumaro("voc_segmentation")),
    "datumaro_voc_ids": ("datumaro", _datumaro("voc_segmentation", apply_colormap=False)),
    "datumaro_camvid": ("datumaro", _datumaro("camvid")),
    "datumaro_cityscapes": ("datumaro", _datumaro("cityscapes")),
    "datumaro_panoptic": ("datumaro", _datumaro("coco_panoptic")),
    "fiftyone": (
        "fiftyone",
        """
import fiftyone.core.labels as labels
from fiftyone.utils.data.exporters import ImageSegmentationDirectoryExporter
with ImageSegmentationDirectoryExporter(export_dir=str(out)) as exporter:
    for index, mask in enumerate(ids):
        path = photo(out.parent / "photos", index)
        exporter.export_sample(str(path), labels.Segmentation(mask=mask.astype(np.uint8)))
""",
    ),
    "label_studio": (
        "label_studio_sdk",
        """
import json
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.converter.converter import Format
values = "".join(f'<Label value="{name}"/>' for name in names[1:])
brush = f'<BrushLabels name="tag" toName="image">{values}</BrushLabels>'
config = f'<View><Image name="image" value="$image"/>{brush}</View>'
tasks = []
for index, mask in enumerate(ids):
    photo(out / "images", index)
    regions = []
    for label in sorted(set(np.unique(mask)) - {0}):
        value = dict(format="rle", rle=mask2rle(((mask == label) * 255).astype(np.uint8)), brushlabels=[names[label]])
        regions.append(dict(id=f"r{label}", from_name="tag", to_name="image", type="brushlabels", image_rotation=0,
                            original_width=mask.shape[1], original_height=mask.shape[0], value=value))
    annotation = dict(id=index + 1, completed_by=1, result=regions, created_at="2026-01-01", updated_at="2026-01-01")
    tasks.append(dict(id=index + 1, data=dict(image=f"a{index}.png"), annotations=[annotation]))
(out / "tasks.json").write_text(json.dumps(tasks))
(out / "masks").mkdir()
converter = Converter(config, str(out), download_resources=False)
converter.convert(str(out / "tasks.json"), str(out / "masks"), Format.BRUSH_TO_PNG, is_dir=False)
""",
    ),
    "labelme": (
        "labelme",
        """
import json
from labelme.utils import lblsave, shapes_to_label
values = {"_background_": 0, **{name: label for label, name in enumerate(names) if label}}
(out / "SegmentationClass").mkdir(parents=True)
(out / "class_names.txt").write_text("\\n".join(values))
for index, mask in enumerate(ids):
    photo(out / "JPEGImages", index)
    # A rectangle for each cell of five pixels, as a person would draw them.
    shapes = [dict(label=names[mask[y, x]], points=[[x, y], [x + 4, y + 4]], shape_type="rectangle", group_id=None)
              for y in range(0, len(mask), 5) for x in range(0, mask.shape[1], 5) if mask[y, x]]
    (out / f"a{index}.json").write_text(json.dumps(dict(shapes=shapes, imagePath=f"a{index}.png")))
    labels, _ = shapes_to_label((*mask.shape, 3), shapes, values)
    lblsave(str(out / "SegmentationClass" / f"a{index}.png"), labels.astype(np.uint8))
""",
    ),
    "supervision": (
        "supervision",
        """
import supervision
annotations, paths = {}, []
for index, mask in enumerate(ids):
    path = str(photo(out / "images", index))
    masks = np.stack([mask == label for label in range(1, len(names)) if (mask == label).any()])
    classes = np.array([label - 1 for label in range(1, len(names)) if (mask == label).any()])
    boxes = supervision.mask_to_xyxy(masks)
    annotations[path] = supervision.Detections(xyxy=boxes, mask=masks, class_id=classes)
    paths.append(path)
dataset = supervision.DetectionDataset(classes=names[1:], images=paths, annotations=annotations)
dataset.as_coco(annotations_path=str(out / "annotations.json"))
""",
    ),
}


def tool_python(package: str) -> str:
    """The interpreter that has a tool; the test is skipped where there is none."""
    named = os.environ.get(f"CLEARCLIP_TOOL_{package.upper()}")
    if named is None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return named or sys.executable


def some_ids(count: int = 2, seed: int = 0) -> np.ndarray:
    """(count, 60, 90) label maps of cells of five pixels, of four classes."""
    cells = np.random.default_rng(seed).integers(0, len(NAMES), (count, 12, 18))
    return cells.repeat(5, axis=1).repeat(5, axis=2)


def export(name: str, folder: Path, ids: np.ndarray) -> Path:
    """Let a tool write label maps; returns its folder."""
    package, script = EXPORTS[name]
    out = folder / name
    if package != "datumaro":  # which makes the folder itself
        out.mkdir(parents=True)
    np.save(folder / "ids.npy", ids)
    command = [tool_python(package), "-c", _START + script, str(out), str(folder / "ids.npy")]
    variables = {**os.environ, "FIFTYONE_DO_NOT_TRACK": "1", "QT_QPA_PLATFORM": "offscreen"}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return out
