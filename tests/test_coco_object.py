"""COCO-Object from COCO-Stuff: the table written out, real masks, stopping and going on, refusals."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.data.coco_object import convert, convert_mask
from clearclip.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "datasets" / "cvt_coco_object.py"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", REPOSITORY.parent / "shared" / "real_samples")) / "coco_stuff"

# Raw id: label, for all things. COCO's category ids minus 1, its ten gaps left out.
# fmt: off
TABLE = {
    0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 12: 12, 13: 13, 14: 14, 15: 15, 16: 16,
    17: 17, 18: 18, 19: 19, 20: 20, 21: 21, 22: 22, 23: 23, 24: 24, 26: 25, 27: 26, 30: 27, 31: 28, 32: 29, 33: 30,
    34: 31, 35: 32, 36: 33, 37: 34, 38: 35, 39: 36, 40: 37, 41: 38, 42: 39, 43: 40, 45: 41, 46: 42, 47: 43, 48: 44,
    49: 45, 50: 46, 51: 47, 52: 48, 53: 49, 54: 50, 55: 51, 56: 52, 57: 53, 58: 54, 59: 55, 60: 56, 61: 57, 62: 58,
    63: 59, 64: 60, 66: 61, 69: 62, 71: 63, 72: 64, 73: 65, 74: 66, 75: 67, 76: 68, 77: 69, 78: 70, 79: 71, 80: 72,
    81: 73, 83: 74, 84: 75, 85: 76, 86: 77, 87: 78, 88: 79, 89: 80,
}
# fmt: on
# Some of them by name: raw id and the name of the label in cls_coco_object.txt.
NAMED = {0: "person", 2: "car", 10: "fire hydrant", 12: "stop sign", 43: "bottle", 71: "tv", 89: "toothbrush"}


def every_id() -> np.ndarray:
    """A mask with every valid id: (13, 15) uint8."""
    ids = [*range(182), 255]
    return np.array(ids + [255] * (13 * 15 - len(ids)), np.uint8).reshape(13, 15)


def by_table(raw: np.ndarray) -> np.ndarray:
    """One pixel after the other."""
    return np.array([[TABLE.get(int(value), 0) for value in row] for row in raw], np.uint8)


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


def outputs(out: Path, split: str = "val") -> dict[str, np.ndarray]:
    """Every file among the annotations, hidden ones included."""
    folder = out / "annotations" / f"{split}2017"
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


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


def test_table_is_the_specification_s():
    assert list(TABLE) == sorted(set(range(90)) - {11, 25, 28, 29, 44, 65, 67, 68, 70, 82})
    assert list(TABLE.values()) == list(range(1, 81))
    names = (REPOSITORY / "config" / "cls_coco_object.txt").read_text().splitlines()
    assert {raw: names[TABLE[raw]].split(",")[0] for raw in NAMED} == NAMED


def test_every_valid_id():
    raw = every_id()
    assert set(np.unique(raw)) == {*range(182), 255}
    converted = convert_mask(raw)
    assert converted.dtype == np.uint8
    np.testing.assert_array_equal(converted, by_table(raw))
    assert set(np.unique(converted)) == set(range(81))


def test_command_line_on_every_valid_id(tmp_path):
    source = make_source(tmp_path / "stuff", {"000000000001": every_id()})
    before = everything_in(source)
    done = subprocess.run(
        [sys.executable, SCRIPT, source, "-o", tmp_path / "object"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "80 of 80 things" in done.stdout
    assert "91 stuff ids and 255" in done.stdout
    # The gaps are valid but never used; they are pointed out.
    assert "id(s) 11, 25, 28, 29, 44, … are none that COCO-Stuff uses" in done.stdout
    made = outputs(tmp_path / "object")
    assert list(made) == ["000000000001_instanceTrainIds.png"]
    np.testing.assert_array_equal(made["000000000001_instanceTrainIds.png"], by_table(every_id()))
    assert everything_in(source) == before


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
@pytest.mark.parametrize("nproc", [1, 2])
def test_real_masks(tmp_path, nproc):
    (report,) = convert(REAL, tmp_path, nproc=nproc)
    seen = set()
    for path in (REAL / "annotations" / "val2017").glob("*.png"):
        raw = np.asarray(Image.open(path))
        expected = np.zeros_like(raw)
        for value, label in TABLE.items():
            expected[raw == value] = label
        seen |= set(np.unique(raw).tolist())
        np.testing.assert_array_equal(outputs(tmp_path)[f"{path.stem}_instanceTrainIds.png"], expected)
        image = tmp_path / "images" / "val2017" / f"{path.stem}.jpg"
        assert image.read_bytes() == (REAL / "images" / "val2017" / image.name).read_bytes()
    assert set(report.raw_ids) == seen
    assert (report.masks, report.written, report.faults) == (3, 3, [])


def test_both_splits_and_processes(tmp_path, command_line):
    masks = {"val": some_masks(5), "train": some_masks(9, seed=1)}
    for split, made in masks.items():
        make_source(tmp_path / "stuff", made, split)
    assert command_line(tmp_path / "stuff", "-o", tmp_path / "object", "--split", "both", "--nproc", 2)[0] == 0
    for split, made in masks.items():
        got = outputs(tmp_path / "object", split)
        assert list(got) == [f"{name}_instanceTrainIds.png" for name in made]
        for name, raw in made.items():
            np.testing.assert_array_equal(got[f"{name}_instanceTrainIds.png"], by_table(raw))


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


def test_the_source_may_be_the_output(tmp_path):
    source = make_source(tmp_path / "stuff", some_masks(3))
    before = everything_in(source)
    for _ in range(2):
        (report,) = convert(source, source)
        assert report.faults == []
    after = everything_in(source)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3


def test_goes_on_where_it_stopped(tmp_path):
    masks = some_masks(6)
    source = make_source(tmp_path / "stuff", masks)
    out = tmp_path / "object"
    convert(source, out)
    folder = out / "annotations" / "val2017"
    whole = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}

    (folder / "000000000000_instanceTrainIds.png").unlink()
    damaged = folder / "000000000001_instanceTrainIds.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "000000000002_instanceTrainIds.png")
    (out / "images" / "val2017" / "000000000003.jpg").unlink()
    (out / "images" / "val2017" / "000000000003.jpg").symlink_to("nowhere.jpg")
    (folder / ".000000000000_instanceTrainIds.png.1.part").write_bytes(b"half")
    (report,) = convert(source, out, nproc=2)

    assert (report.masks, report.written, report.faults) == (6, 3, [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {n: data for n, (_, data) in whole.items()}
    for number in (3, 4, 5):
        kept = folder / f"{number:012d}_instanceTrainIds.png"
        assert kept.stat().st_mtime_ns == whole[kept.name][0]
    assert (out / "images" / "val2017" / "000000000003.jpg").is_file()


def test_killed_and_run_again(tmp_path):
    masks = some_masks(4)
    large = {f"{n:012d}": np.tile(masks[f"{n % 4:012d}"], (12, 12)) for n in range(400)}
    source = make_source(tmp_path / "stuff", large)
    out = tmp_path / "object"
    folder = out / "annotations" / "val2017"
    process = subprocess.Popen([sys.executable, SCRIPT, source, "-o", out, "--nproc", "2"])
    deadline = time.monotonic() + 120
    while len(list(folder.glob("0*.png"))) < 20 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in folder.glob("*_instanceTrainIds.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), by_table(large[path.name[:12]]))

    (report,) = convert(source, out, nproc=2)
    assert report.faults == []
    assert 0 < report.written < 400
    got = outputs(out)
    assert list(got) == [f"{name}_instanceTrainIds.png" for name in large]
    tables = {name: np.tile(by_table(mask), (12, 12)) for name, mask in masks.items()}
    for name, labels in got.items():
        np.testing.assert_array_equal(labels, tables[f"{int(name[:12]) % 4:012d}"])


def test_strangers_in_the_output_are_pointed_out(tmp_path, command_line):
    source = make_source(tmp_path / "stuff", some_masks(2))
    other = make_source(tmp_path / "other", {"000000000777": every_id()})
    convert(other, tmp_path / "object")
    code, told, _ = command_line(source, "-o", tmp_path / "object")
    assert code == 1
    assert told.count("does not fit: 1 ") == 2
    assert "000000000777_instanceTrainIds.png" in told
    assert len(outputs(tmp_path / "object")) == 3

    (source / "annotations" / "val2017" / "000000000001.png").unlink()
    (report,) = convert(source, tmp_path / "fresh")
    assert report.faults == ["1 image(s) have no raw mask (first: 000000000001.jpg)"]


def _no_folder(source):
    return source.with_name("nowhere")


def _annotations_only(source):
    return source / "annotations"


def _no_images(source):
    for path in (source / "images" / "val2017").iterdir():
        path.unlink()
    (source / "images" / "val2017").rmdir()


def _one_image_missing(source):
    (source / "images" / "val2017" / "000000000001.jpg").unlink()


def _no_masks(source):
    for path in (source / "annotations" / "val2017").iterdir():
        path.unlink()


def _label_train_ids_by_name(source):
    for path in (source / "annotations" / "val2017").iterdir():
        path.rename(path.with_name(f"{path.stem}_labelTrainIds.png"))


def _label_train_ids_by_content(source):
    ids = np.arange(171, dtype=np.uint8).reshape(9, 19)
    for path in (source / "annotations" / "val2017").iterdir():
        Image.fromarray(ids).save(path)
        Image.new("RGB", (19, 9)).save(source / "images" / "val2017" / f"{path.stem}.jpg")


def _mask(source, mask: Image.Image):
    mask.save(source / "annotations" / "val2017" / "000000000001.png")
    Image.new("RGB", mask.size).save(source / "images" / "val2017" / "000000000001.jpg")


def _three_channels(source):
    _mask(source, Image.new("RGB", (20, 10)))


def _sixteen_bits(source):
    _mask(source, Image.fromarray(np.full((10, 20), 300, np.uint16)))


def _id_out_of_range(source):
    _mask(source, Image.fromarray(np.full((10, 20), 182, np.uint8)))


def _other_size(source):
    _mask(source, Image.fromarray(every_id()))
    Image.new("RGB", (5, 5)).save(source / "images" / "val2017" / "000000000001.jpg")


def _truncated(source):
    path = source / "annotations" / "val2017" / "000000000001.png"
    path.write_bytes(path.read_bytes()[:-40])


def _no_png(source):
    (source / "annotations" / "val2017" / "000000000001.png").write_text("<html>")


REFUSALS = {
    _no_folder: "does not exist",
    _annotations_only: "is no COCO-Stuff 164k: its images should lie in",
    _no_images: "is no COCO-Stuff 164k: its images should lie in",
    _one_image_missing: "000000000001.jpg is missing (1 of 3 masks have no image)",
    _no_masks: "no masks (*.png)",
    _label_train_ids_by_name: "only converted masks (*TrainIds.png)",
    _label_train_ids_by_content: "look like labelTrainIds (they use ids 11, 25, 28, 29, 44, …",
    _three_channels: "000000000001.png has 3 channel(s) of mode RGB",
    _sixteen_bits: "000000000001.png has 1 channel(s) of mode I;16",
    _id_out_of_range: "000000000001.png has id(s) 182; raw COCO-Stuff masks have 0..181 and 255 only",
    _other_size: "000000000001.png is 15x13, image",
    _truncated: "000000000001.png is damaged",
    _no_png: "000000000001.png cannot be read as an image",
}


@pytest.mark.parametrize("spoil", REFUSALS, ids=lambda spoil: spoil.__name__.strip("_"))
def test_refused_with_the_reason_and_nothing_written(spoil, tmp_path):
    source = make_source(tmp_path / "stuff", some_masks(3))
    source = spoil(source) or source
    with pytest.raises(UserError) as refusal:
        convert(source, tmp_path / "object")
    assert REFUSALS[spoil] in str(refusal.value)
    assert ";" in str(refusal.value)
    assert not (tmp_path / "object").exists()


def test_command_line_refuses_in_one_line(tmp_path, command_line):
    source = make_source(tmp_path / "stuff", some_masks(3))
    _id_out_of_range(source)
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    for arguments, culprit in (
        ([source, "-o", tmp_path / "object"], "000000000001.png"),
        ([source, "-o", not_a_folder], str(not_a_folder)),
        ([source], "-o/--out"),
        ([source, "-o", tmp_path / "object", "--nproc", 0], "--nproc 0"),
        ([source, "-o", tmp_path / "object", "--split", "test"], "--split"),
    ):
        code, out, error = command_line(*arguments)
        assert (code, out) == (2, "")
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert culprit in error
        assert not (tmp_path / "object").exists()


def test_a_wrong_mask_beyond_the_sample_stops_and_the_rest_is_whole(tmp_path):
    masks = some_masks(130)
    masks["000000000101"] = np.full((10, 20), 200, np.uint8)
    source = make_source(tmp_path / "stuff", masks)
    with pytest.raises(UserError, match=r"000000000101\.png has id\(s\) 200"):
        convert(source, tmp_path / "object", nproc=2)
    made = outputs(tmp_path / "object")
    assert made
    for name, labels in made.items():
        np.testing.assert_array_equal(labels, by_table(masks[name[:12]]))


def test_another_image_in_the_output_is_not_overwritten(tmp_path):
    source = make_source(tmp_path / "stuff", some_masks(1))
    stranger = tmp_path / "object" / "images" / "val2017" / "000000000000.jpg"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"something else")
    with pytest.raises(UserError, match="is another image than"):
        convert(source, tmp_path / "object")
    assert stranger.read_bytes() == b"something else"
