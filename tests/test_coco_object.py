"""COCO-Object from COCO-Stuff: the table written out, real masks, resuming, refusals."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.data.coco_object import convert
from clearclip.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "datasets" / "cvt_coco_object.py"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", REPOSITORY.parent / "shared" / "real_samples")) / "coco_stuff"

# Label of each raw id: COCO's category ids minus 1, its ten gaps left out, in ascending order.
TABLE = dict(zip(sorted(set(range(90)) - {11, 25, 28, 29, 44, 65, 67, 68, 70, 82}), range(1, 81), strict=True))
# Some of them by name: raw id and the name of the label in cls_coco_object.txt.
NAMED = {0: "person", 2: "car", 10: "fire hydrant", 12: "stop sign", 43: "bottle", 71: "tv", 89: "toothbrush"}


def every_id() -> np.ndarray:
    """A mask with every valid id: (13, 15) uint8."""
    ids = [*range(182), 255]
    return np.array(ids + [255] * (13 * 15 - len(ids)), np.uint8).reshape(13, 15)


def by_table(raw: np.ndarray) -> np.ndarray:
    """Label after label."""
    converted = np.zeros_like(raw)
    for value, label in TABLE.items():
        converted[raw == value] = label
    return converted


def make_source(root: Path, masks: dict[str, np.ndarray], split: str = "val") -> Path:
    """COCO-Stuff with these raw masks and an image for each."""
    for folder in ("images", "annotations"):
        (root / folder / f"{split}2017").mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray(mask).save(root / "annotations" / f"{split}2017" / f"{name}.png")
        image = np.full((*mask.shape[:2], 3), 90, np.uint8)
        Image.fromarray(image).save(root / "images" / f"{split}2017" / f"{name}.jpg")
    return root


def some_masks(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.array([*TABLE, *range(91, 182), 255], np.uint8)
    return {f"{n:012d}": rng.choice(ids, (rng.integers(10, 30), rng.integers(10, 30))) for n in range(count)}


def assert_converted(out: Path, masks: dict[str, np.ndarray], split: str = "val"):
    """The converted masks are those of these raw ones and no others."""
    paths = sorted((out / "annotations" / f"{split}2017").glob("[!.]*_instanceTrainIds.png"))
    assert [path.name for path in paths] == [f"{name}_instanceTrainIds.png" for name in masks]
    for path, raw in zip(paths, masks.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), by_table(raw))


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run the script in this process, which spares it the imports. Returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return stop.value.code, *capsys.readouterr()

    return run


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_valid_id(tmp_path, command_line):
    raw = every_id()
    assert set(np.unique(by_table(raw))) == set(range(81))
    names = (REPOSITORY / "config" / "cls_coco_object.txt").read_text().splitlines()
    assert {raw: names[TABLE[raw]].split(",")[0] for raw in NAMED} == NAMED
    source = make_source(tmp_path / "stuff", {"000000000001": raw})
    before = everything_in(source)
    code, told, _ = command_line(source, "-o", tmp_path / "object")
    assert code == 0
    assert "1 masks" in told
    assert "80 of 80 things" in told
    assert "91 stuff ids" in told
    assert_converted(tmp_path / "object", {"000000000001": raw})
    assert everything_in(source) == before


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
def test_real_masks(tmp_path):
    (report,) = convert(REAL, tmp_path, threads=2)
    masks = {path.stem: np.asarray(Image.open(path)) for path in sorted((REAL / "annotations/val2017").glob("*.png"))}
    assert_converted(tmp_path, masks)
    for name in masks:
        image = f"images/val2017/{name}.jpg"
        assert (tmp_path / image).read_bytes() == (REAL / image).read_bytes()
    assert report.raw_ids == {int(value) for mask in masks.values() for value in np.unique(mask)}
    assert (report.masks, report.written, report.faults) == (3, 3, [])


def test_both_splits_into_the_source_itself(tmp_path, command_line):
    masks = {"val": some_masks(5), "train": some_masks(9, seed=1)}
    for split, made in masks.items():
        make_source(tmp_path, made, split)
    before = everything_in(tmp_path)
    for _ in range(2):
        assert command_line(tmp_path, "-o", tmp_path, "--split", "both", "--nproc", 2)[0] == 0
        for split, made in masks.items():
            assert_converted(tmp_path, made, split)
    after = everything_in(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 14


def test_images_are_linked_or_copied(tmp_path):
    source = make_source(tmp_path / "stuff", some_masks(2))
    convert(source, tmp_path / "object")
    image = tmp_path / "object" / "images" / "val2017" / "000000000000.jpg"
    assert image.is_symlink()
    assert image.samefile(source / "images" / "val2017" / image.name)
    # Both can be moved together.
    assert not image.readlink().is_absolute()

    convert(source, tmp_path / "object", copy=True)
    assert not image.is_symlink()
    assert image.read_bytes() == (source / "images" / "val2017" / image.name).read_bytes()

    image.write_bytes(b"something else")
    with pytest.raises(UserError, match="is another image than"):
        convert(source, tmp_path / "object")
    assert image.read_bytes() == b"something else"


def test_resumes_with_what_is_missing_or_damaged(tmp_path):
    masks = some_masks(6)
    source = make_source(tmp_path / "stuff", masks)
    out = tmp_path / "object"
    convert(source, out)
    paths = [out / "annotations" / "val2017" / f"{name}_instanceTrainIds.png" for name in masks]
    times = [path.stat().st_mtime_ns for path in paths]

    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(paths[2])
    image = out / "images" / "val2017" / "000000000003.jpg"
    image.unlink()
    image.symlink_to("nowhere.jpg")
    (report,) = convert(source, out, threads=2)

    assert (report.masks, report.written, report.faults) == (6, 3, [])
    assert_converted(out, masks)
    assert [path.stat().st_mtime_ns for path in paths[3:]] == times[3:]
    assert image.is_file()


def test_killed_and_run_again(tmp_path):
    masks = {name: np.tile(mask, (12, 12)) for name, mask in some_masks(400).items()}
    source = make_source(tmp_path / "stuff", masks)
    out = tmp_path / "object"
    process = subprocess.Popen([sys.executable, SCRIPT, source, "-o", out, "--nproc", "2"])
    deadline = time.monotonic() + 120
    while len(list(out.rglob("0*.png"))) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()

    # Whatever has its final name is whole: all of it is kept.
    there = len(list(out.rglob("0*.png")))
    (report,) = convert(source, out, threads=2)
    assert (report.written, report.faults) == (400 - there, [])
    assert 0 < report.written < 400
    assert_converted(out, masks)


def test_files_of_another_source_are_reported(tmp_path, command_line):
    source = make_source(tmp_path / "stuff", some_masks(2))
    convert(make_source(tmp_path / "other", {"000000000777": every_id()}), tmp_path / "object")
    (source / "annotations" / "val2017" / "000000000001.png").unlink()
    code, told, _ = command_line(source, "-o", tmp_path / "object")
    assert code == 1
    for fault in (
        "1 image(s) without raw mask, such as 000000000001.jpg",
        "1 image(s) of another source, such as 000000000777.jpg",
        "1 mask(s) of another source, such as 000000000777_instanceTrainIds.png",
    ):
        assert fault in told


def _save(path: Path, mask: np.ndarray):
    Image.fromarray(mask).save(path)
    Image.new("RGB", (20, 10)).save(path.parents[2] / "images" / "val2017" / f"{path.stem}.jpg")


# One for each kind of fault: message, and how it comes about; ``s`` is the source, ``m`` its second mask.
REFUSALS = {
    "folder": ("images should be in", lambda s, m: shutil.rmtree(s / "images")),
    "image": ("000000000001.jpg is missing (1 of 3", lambda s, m: (s / "images/val2017/000000000001.jpg").unlink()),
    "masks": ("no masks (*.png)", lambda s, m: [path.unlink() for path in m.parent.iterdir()]),
    "names": ("only converted masks", lambda s, m: [p.rename(f"{p}_labelTrainIds.png") for p in m.parent.iterdir()]),
    "train_ids": (
        "look like labelTrainIds (they use ids [11, 25, 28, 29, 44],",
        lambda s, m: [_save(p, np.resize(np.arange(171, dtype=np.uint8), (10, 20))) for p in m.parent.iterdir()],
    ),
    "channels": ("000000000001.png has 3 channel(s)", lambda s, m: _save(m, np.zeros((10, 20, 3), np.uint8))),
    "bits": ("000000000001.png has 1 channel(s) of 16 bits", lambda s, m: _save(m, np.zeros((10, 20), np.uint16))),
    "ids": ("has id(s) 182, raw COCO-Stuff masks", lambda s, m: _save(m, np.full((10, 20), 182, np.uint8))),
    "size": ("is 20x11, image", lambda s, m: _save(m, np.zeros((11, 20), np.uint8))),
    "cut": ("000000000001.png cannot be read", lambda s, m: m.write_bytes(m.read_bytes()[:-40])),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_refused_with_the_reason_and_nothing_written(fault, tmp_path):
    message, spoil = REFUSALS[fault]
    source = make_source(tmp_path / "stuff", some_masks(3))
    spoil(source, source / "annotations" / "val2017" / "000000000001.png")
    with pytest.raises(UserError) as refusal:
        convert(source, tmp_path / "object")
    assert message in str(refusal.value)
    assert ";" in str(refusal.value)
    assert not (tmp_path / "object").exists()


def test_a_wrong_mask_beyond_the_sample_stops_and_the_rest_is_whole(tmp_path, command_line):
    masks = some_masks(130)
    masks["000000000101"] = np.full((10, 20), 200, np.uint8)
    source = make_source(tmp_path / "stuff", masks)
    code, _, error = command_line(source, "-o", tmp_path / "object", "--nproc", 2)
    assert code == 2
    assert "000000000101.png has id(s) 200" in error
    made = {path.name[:12]: masks[path.name[:12]] for path in sorted((tmp_path / "object").rglob("0*.png"))}
    assert made
    assert_converted(tmp_path / "object", made)
