"""Label maps of images without masks: the ids, names and palettes that test servers take."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from layouts import FURTHER, LAYOUTS, make_layout
from mmseg.datasets import ADE20KDataset, CityscapesDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from clearclip import UserError
from clearclip.commands.eval import eval_command
from clearclip.evaluation.config import load_config
from clearclip.evaluation.datasets import MappedDataset, PascalVOC20Dataset, build_dataset, plain_datasets
from clearclip.evaluation.label_map_formats import label_map_format, voc_palette
from clearclip.evaluation.mask_loading import LoadLabels

CONFIGS = Path(__file__).resolve().parents[2] / "config"
#: Of Cityscapes' label list: name, id, trainId.
CITYSCAPES = """road 7 0, sidewalk 8 1, building 11 2, wall 12 3, fence 13 4, pole 17 5, traffic light 19 6,
traffic sign 20 7, vegetation 21 8, terrain 22 9, sky 23 10, person 24 11, rider 25 12, car 26 13, truck 27 14,
bus 28 15, train 31 16, motorcycle 32 17, bicycle 33 18"""


def run(name: str, root: Path, out: Path, model: str, *more: str) -> int:
    """Label maps of a bundled config's images, its masks removed."""
    arguments = ["--config", str(CONFIGS / f"cfg_{name}.py"), "--no-masks", "--out", str(out), "--device", "cpu"]
    arguments += ["--data-root", str(root), "--workers", "0", *more]
    return eval_command(
        [*arguments, "--cfg-options", f"model.model_name={model}", "model.clip_type=None", "model.vit_type=None"]
    )


def without_masks(name: str, folder: Path) -> Path:
    """A benchmark's images alone, as a test set comes."""
    made = make_layout(name, folder, images=2)
    for mask in made["masks"]:
        Path(mask).unlink()
    return Path(made["data_root"])


@pytest.fixture(autouse=True)
def no_files_are_needed(monkeypatch):
    """Some classes of MMSegmentation's ask for their files before they read them."""
    there = SimpleNamespace(exists=lambda *_, **__: True, isfile=lambda path: True)
    for module in ("voc", "pascal_context", "isaid"):
        monkeypatch.setattr(f"mmseg.datasets.{module}.fileio", there)
    monkeypatch.setattr("mmseg.datasets.voc.osp", there)


def test_cityscapes_ids_by_the_published_list():
    dataset = CityscapesDataset(test_mode=True, lazy_init=True)
    label_maps = label_map_format(dataset)
    for line in CITYSCAPES.replace("\n", " ").split(","):
        name, label_id, train_id = line.strip().rsplit(" ", 2)
        assert dataset.metainfo["classes"][int(train_id)] == name
        assert label_maps.values[int(train_id)] == int(label_id)
    assert fnmatch(label_maps.file_name("berlin_000000_000019_leftImg8bit"), "berlin_000000_000019_*.png")
    picture = label_maps.image(np.array([[0, 18]]))
    assert picture.mode == "L" and np.asarray(picture).tolist() == [[7, 33]]


def test_ade20k_and_voc():
    """ADE20K's ids begin with 1, PASCAL VOC's with its background, whether or not that is a class here."""
    ade = label_map_format(ADE20KDataset(test_mode=True, lazy_init=True))
    assert ade.file_name("ADE_test_00000001") == "ADE_test_00000001.png"
    assert ade.values.tolist() == list(range(1, 151)) and ade.image(np.array([[149]])).mode == "L"
    voc = label_map_format(PascalVOC20Dataset(ann_file="", test_mode=True, lazy_init=True))
    picture = voc.image(np.array([[0, 19]]))
    assert picture.mode == "P" and np.asarray(picture).tolist() == [[1, 20]]
    assert np.asarray(picture.convert("RGB")).tolist() == [[[128, 0, 0], [0, 64, 128]]]
    for index, colour in enumerate(PascalVOC20Dataset.METAINFO["palette"], start=1):
        assert voc_palette()[index].tolist() == colour
    assert voc_palette()[255].tolist() == [224, 224, 192]  # around objects, as the development kit has it


def test_ids_that_are_mapped_and_colours():
    ids = MappedDataset(
        ids=[4, [0, 2], 300], metainfo=dict(classes=["a", "b", "c"]), test_mode=True, lazy_init=True, ignore_index=999
    )
    label_maps = label_map_format(ids)
    assert label_maps.values.tolist() == [4, 0, 300]
    assert np.asarray(label_maps.image(np.array([[2, 0]]))).tolist() == [[300, 4]]
    colours = MappedDataset(
        colours=[[1, 2, 3], [[0, 0, 9], [0, 0, 8]]], metainfo=dict(classes=["a", "b"]), test_mode=True, lazy_init=True
    )
    picture = label_map_format(colours).image(np.array([[1, 0]]))
    assert picture.mode == "RGB" and np.asarray(picture).tolist() == [[[0, 0, 9], [1, 2, 3]]]


@pytest.mark.parametrize("name", [name for name in (*LAYOUTS, *FURTHER) if name != "city_scapes"])
def test_what_is_written_is_read_as_the_same_labels(name, tmp_path):
    """By the config's own reader of masks, for every label of every bundled config."""
    settings = load_config(CONFIGS / f"cfg_{name}.py").test_dataloader.dataset.to_dict()
    settings |= dict(lazy_init=True, pipeline=[])
    (dataset,) = plain_datasets(build_dataset(settings))
    label_maps = label_map_format(dataset)
    labels = np.arange(len(dataset.metainfo["classes"]), dtype=np.uint16)[None]
    reader = LoadLabels(LoadAnnotations(), dataset)
    label_maps.image(labels).save(tmp_path / "map.png")
    results = dict(seg_map_path=str(tmp_path / "map.png"), seg_fields=[], label_map=dataset.label_map)
    results["reduce_zero_label"] = dataset.reduce_zero_label
    reader._load_seg_map(results)
    np.testing.assert_array_equal(results["gt_seg_map"], labels)


def test_a_test_set_of_cityscapes(tmp_path, quick_name, capsys):
    root = without_masks("city_scapes", tmp_path)
    assert run("city_scapes", root, tmp_path / "out", quick_name) == 0
    assert "2 label maps in" in capsys.readouterr().out
    paths = sorted((tmp_path / "out").iterdir())
    cities = ["frankfurt_000000_00000?", "munster_00000?_000019"]
    for path, city in zip(paths, cities, strict=True):
        assert fnmatch(path.name, f"{city}_labelIds.png")
    known_ids = {int(line.strip().rsplit(" ", 2)[1]) for line in CITYSCAPES.replace("\n", " ").split(",")}
    for path in paths:
        assert set(np.unique(np.asarray(Image.open(path))).tolist()) <= known_ids


def test_a_damaged_image_and_several_methods(tmp_path, quick_name, capsys):
    root = without_masks("ade20k", tmp_path)
    first = sorted(root.rglob("*.jpg"))[0]
    first.write_bytes(b"\xff\xd8")
    with pytest.raises(UserError, match="--on-error skip"):
        run("ade20k", root, tmp_path / "stopped", quick_name)
    assert (
        run("ade20k", root, tmp_path / "out", quick_name, "--on-error", "skip", "--methods", "CLIP", "ClearCLIP") == 0
    )
    output = capsys.readouterr().out
    assert "1 label map in" in output and f"skipped {first}" in output
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("*.png")) == ["CLIP", "ClearCLIP"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-masks"], "--out DIR"),
        (["--out", "maps"], "--no-masks"),
        (["--no-masks", "--out", "maps", "--resume"], "--resume needs masks"),
        (["--no-masks", "--out", "maps", "--confusion", "x"], "--confusion needs masks"),
    ],
)
def test_options_that_do_not_go_together(arguments, words):
    with pytest.raises(UserError, match=words):
        eval_command(["--config", str(CONFIGS / "cfg_ade20k.py"), *arguments])
