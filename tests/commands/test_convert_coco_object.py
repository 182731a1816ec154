"""COCO-Object from COCO-Stuff: the table written out, real masks, resuming, refusals."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.commands.convert_coco_object import convert
from clearclip.utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", REPOSITORY.parent / "shared" / "real_samples")) / "coco_stuff"

# Label of each raw id: COCO's category ids minus 1, its ten gaps left out, in ascending order.
TABLE = dict(zip(sorted(set(range(90)) - {11, 25, 28, 29, 44, 65, 67, 68, 70, 82}), range(1, 81), strict=True))
# Some of them by name: raw id and the name of the label in cls_coco_object.txt.
NAMED = {0: "person", 2: "car", 10: "fire hydrant", 12: "stop sign", 43: "bottle", 71: "tv", 89: "toothbrush"}


def make_source(root: Path, masks: dict[str, np.ndarray], split: str = "val") -> Path:
    """COCO-Stuff with these raw masks and an image for each."""
    for folder in ("images", "annotations"):
        (root / folder / f"{split}2017").mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        save(root / "annotations" / f"{split}2017" / f"{name}.png", mask, mask.shape[1::-1])
    return root


def save(path: Path, mask: np.ndarray, size: tuple[int, int] = (20, 10)):
    """A mask, and its image."""
    Image.fromarray(mask).save(path)
    Image.new("RGB", size).save(path.parents[2] / "images" / path.parent.name / f"{path.stem}.jpg")


def some_masks(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.array([*TABLE, *range(91, 182), 255], np.uint8)
    return {f"{n:012d}": rng.choice(ids, (rng.integers(10, 30), rng.integers(10, 30))) for n in range(count)}


def assert_converted(out: Path, masks: dict[str, np.ndarray], split: str = "val"):
    """The converted masks are those of these raw ones, label after label, and no others."""
    paths = sorted((out / "annotations" / f"{split}2017").glob("[!.]*_instanceTrainIds.png"))
    assert [path.name for path in paths] == [f"{name}_instanceTrainIds.png" for name in masks]
    for path, raw in zip(paths, masks.values(), strict=True):
        converted = np.zeros_like(raw)
        for value, label in TABLE.items():
            converted[raw == value] = label
        np.testing.assert_array_equal(np.asarray(Image.open(path)), converted)


def test_every_valid_id(tmp_path):
    raw = np.resize(np.array([*TABLE, *range(91, 182), 255], np.uint8), (13, 15))
    names = (REPOSITORY / "config" / "cls_coco_object.txt").read_text().splitlines()
    assert {raw: names[TABLE[raw]].split(",")[0] for raw in NAMED} == NAMED
    source = make_source(tmp_path / "stuff", {"000000000001": raw})
    assert convert(source, tmp_path / "object") == (1, 1)
    assert_converted(tmp_path / "object", {"000000000001": raw})


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
def test_real_masks(tmp_path):
    assert convert(REAL, tmp_path, threads=2) == (3, 3)
    masks = {path.stem: np.asarray(Image.open(path)) for path in sorted((REAL / "annotations/val2017").glob("*.png"))}
    assert_converted(tmp_path, masks)
    for name in masks:
        image = f"images/val2017/{name}.jpg"
        assert (tmp_path / image).read_bytes() == (REAL / image).read_bytes()


def test_both_splits_into_the_source_itself(tmp_path, monkeypatch, capsys):
    masks = {"val": some_masks(5), "train": some_masks(9, seed=1)}
    for split, made in masks.items():
        make_source(tmp_path, made, split)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr(sys, "argv", ["cvt", str(tmp_path), "-o", str(tmp_path), "--split", "both", "--nproc", "2"])
    for written in (9, 0):
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(REPOSITORY / "datasets" / "cvt_coco_object.py"), run_name="__main__")
        assert f"train: 9 masks in {tmp_path}, {written} of them written now" in capsys.readouterr().out
    for split, made in masks.items():
        assert_converted(tmp_path, made, split)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert before.items() <= after.items() and len(after) == len(before) + 14


def test_images_are_linked_or_copied(tmp_path):
    source = make_source(tmp_path / "a" / "stuff", some_masks(2))
    convert(source, tmp_path / "a" / "object")
    (tmp_path / "a").rename(tmp_path / "b")  # both can be moved together
    source, out = tmp_path / "b" / "stuff", tmp_path / "b" / "object"
    image = out / "images" / "val2017" / "000000000000.jpg"
    assert image.is_symlink() and image.samefile(source / "images" / "val2017" / image.name)
    convert(source, out, copy=True)
    assert not image.is_symlink()
    assert image.read_bytes() == (source / "images" / "val2017" / image.name).read_bytes()
    image.write_bytes(b"a file is never replaced")
    convert(source, out)
    assert image.read_bytes() == b"a file is never replaced"


def test_a_full_disk_leaves_whole_files_and_the_next_run_goes_on(tmp_path, monkeypatch):
    masks = some_masks(6)
    source, out = make_source(tmp_path / "stuff", masks), tmp_path / "object"
    whole, written = Image.Image.save, []

    def save_until_full(image, path, **options):
        if len(written) == 4:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        written.append(path)
        whole(image, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save_until_full)
        with pytest.raises(UserError, match=r"cannot be written.*No space left.*run the same command again"):
            convert(source, out)
    assert_converted(out, dict(list(masks.items())[:4]))
    first, second = sorted(out.rglob("0*.png"))[:2]
    second.write_bytes(second.read_bytes()[:60])
    times = first.stat().st_mtime_ns
    link = out / "images" / "val2017" / "000000000003.jpg"
    link.unlink()
    link.symlink_to("nowhere.jpg")
    assert convert(source, out, threads=2) == (6, 3)
    assert_converted(out, masks)
    assert first.stat().st_mtime_ns == times and link.is_file()


# One for each kind of fault: message, and how it comes about; ``s`` is the source, ``m`` its second mask.
REFUSALS = {
    "masks": ("no raw masks", lambda s, m: [p.rename(f"{p}_labelTrainIds.png") for p in m.parent.iterdir()]),
    "images": ("000000000000.jpg is missing (3 of 3", lambda s, m: shutil.rmtree(s / "images")),
    "train_ids": (
        "has id(s) [11, 25, 28,",
        lambda s, m: [save(p, np.resize(np.arange(171, dtype=np.uint8), (10, 20))) for p in m.parent.iterdir()],
    ),
    "channels": ("has 8 bits and shape (10, 20, 3)", lambda s, m: save(m, np.zeros((10, 20, 3), np.uint8))),
    "bits": ("has 16 bits and shape (10, 20)", lambda s, m: save(m, np.zeros((10, 20), np.uint16))),
    "ids": ("has id(s) [182], which no raw mask has", lambda s, m: save(m, np.full((10, 20), 182, np.uint8))),
    "size": ("shape (11, 20), its image (10, 20)", lambda s, m: save(m, np.zeros((11, 20), np.uint8))),
    "cut": ("000000000001.png cannot be read", lambda s, m: m.write_bytes(m.read_bytes()[:-40])),
}


#: Names of COCO's categories 11 to 13 and 90 to 92, as its list of labels has them (12 and 91 occur nowhere).
BESIDE_UNUSED = {11: "fire hydrant", 13: "stop sign", 90: "toothbrush"}


def test_masks_that_count_from_1(tmp_path):
    """COCO's category ids themselves, 182 not among them: a person would become a bicycle, whose label is 2."""
    for category, name in BESIDE_UNUSED.items():
        assert NAMED[category - 1] == name
    categories = [raw_id + 1 for raw_id in (*TABLE, *range(91, 181))]
    assert 182 not in categories and 1 in categories
    masks = {f"{n:012d}": np.full((10, 20), 1, np.uint8) for n in range(200)}
    rng = np.random.default_rng(0)
    for number in range(0, 200, 4):
        masks[f"{number:012d}"] = rng.choice(np.array(categories, np.uint8), (10, 20))
    source = make_source(tmp_path / "stuff", masks)
    with pytest.raises(UserError, match=r"which no raw mask has.*count from 1"):
        convert(source, tmp_path / "object")
    assert not (tmp_path / "object").exists()


def test_a_foreign_mask_beyond_the_first_ones(tmp_path):
    """It is refused when it comes, and the line says what the others are worth."""
    masks = some_masks(130)
    masks["000000000001"] = np.full((10, 20), 44, np.uint8)
    source = make_source(tmp_path / "stuff", masks)
    with pytest.raises(UserError, match=r"000000000001\.png has id\(s\) \[44\].*written before"):
        convert(source, tmp_path / "object")


@pytest.mark.parametrize("fault", REFUSALS)
def test_refused_with_the_reason_and_nothing_written(fault, tmp_path):
    message, spoil = REFUSALS[fault]
    source = make_source(tmp_path / "stuff", some_masks(3))
    spoil(source, source / "annotations" / "val2017" / "000000000001.png")
    with pytest.raises(UserError) as refusal:
        convert(source, tmp_path / "object")
    assert message in str(refusal.value) and "; " in str(refusal.value)
    assert not (tmp_path / "object").exists()
