"""Each kind of fault that a dataset's files can have is named, with its remedy."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, make_layout
from mmengine.config import Config
from PIL import Image

from clearclip.data.check import check_dataset, quick_check
from clearclip.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "config"
SCRIPT = REPOSITORY / "datasets" / "check.py"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", REPOSITORY.parent / "shared" / "real_samples"))


def load(name: str, data_root: Path, expected: int | None = 3) -> Config:
    cfg = Config.fromfile(CONFIG / f"cfg_{name}.py")
    cfg.test_dataloader.dataset.data_root = str(data_root)
    cfg.expected_images = expected
    return cfg


def build(name: str, root: Path, images: int = 3) -> tuple[Config, dict]:
    made = make_layout(name, root, images)
    return load(name, made["data_root"], images), made


@pytest.mark.parametrize("name", LAYOUTS)
def test_whole_benchmarks_are_complete_and_their_ids_known(name, tmp_path):
    cfg, made = build(name, tmp_path)
    assert quick_check(cfg) == []
    report = check_dataset(cfg, full=True)
    assert report.complete
    assert (report.listed, report.images, report.masks, report.opened, report.sizes, report.ids) == (3,) * 6

    high = LAYOUTS[name].ids[1]
    Image.fromarray(np.full_like(made["raw"][0], high + 1)).save(made["masks"][0])
    with pytest.raises(UserError, match=rf"id\(s\) {high + 1}, valid are 0\.\.{high} and 255;"):
        quick_check(cfg)


def _spoil_mask(made, mask):
    Image.fromarray(np.ascontiguousarray(mask)).save(made["masks"][0])


def _names_file(cfg, made):
    (made["data_root"] / "names.txt").write_text("background\nthing\n")
    cfg.model.name_path = str(made["data_root"] / "names.txt")


def _relink(path):
    path.unlink()
    path.symlink_to("nowhere.jpg")


# One for each kind of fault: benchmark, message, how it comes about.
FAULTS = {
    "no_root": ("voc21", "root {root} of voc21 does not exist;", lambda c, m: shutil.rmtree(m["data_root"])),
    "no_list": ("voc21", "list file {list} does not exist;", lambda c, m: m["list_file"].unlink()),
    "empty_list": ("voc20", "list file {list} is empty;", lambda c, m: m["list_file"].write_text("\n \n")),
    "binary_list": ("voc21", "list file {list} cannot be read", lambda c, m: m["list_file"].write_bytes(b"\xff\xfe")),
    "blank_line": ("context60", "line 2 of list file {list} is blank;", lambda c, m: _write_list(m, 0, None, 1)),
    "twice": ("context59", "list file {list} has {stem1} more than once;", lambda c, m: _write_list(m, 0, 1, 1)),
    "no_folder": ("ade20k", "folder {images} does not exist;", lambda c, m: shutil.rmtree(m["images"][0].parent)),
    "no_images": ("city_scapes", "has no image (*_leftImg8bit.png);", lambda c, m: [p.unlink() for p in m["images"]]),
    "image": ("voc21", "image {image1} is missing;", lambda c, m: m["images"][1].unlink()),
    "masks": ("coco_object", "mask {mask1} is missing (2 of 3 are missing); make the masks with datasets/cvt_coco",
              lambda c, m: [path.unlink() for path in m["masks"][1:]]),
    "dead_link": ("coco_object", "image {image1} is a link to a file that", lambda c, m: _relink(m["images"][1])),
    "size": ("ade20k", "mask {mask0} is {width}x{taller}, its image {width}x{height};",
             lambda c, m: _spoil_mask(m, np.pad(m["raw"][0], ((0, 1), (0, 0))))),
    "channels": ("voc21", "mask {mask0} has 3 channels", lambda c, m: _spoil_mask(m, np.dstack([m["raw"][0]] * 3))),
    # The low byte alone would be a valid id.
    "high_byte": ("voc21", "mask {mask0} has id(s) 256",
                  lambda c, m: _spoil_mask(m, np.full_like(m["raw"][0], 256, np.uint16))),
    "cut_mask": ("ade20k", "mask {mask0} cannot be read", lambda c, m: _cut(m["masks"][0])),
    "text_image": ("ade20k", "image {image0} cannot be read", lambda c, m: m["images"][0].write_text("404: Not Found")),
    "names": ("voc21", "names.txt has 2 classes, voc21 has 21;", _names_file),
}  # fmt: skip


def _write_list(made, *lines):
    made["list_file"].write_text("".join(f"{'' if n is None else made['stems'][n]}\n" for n in lines))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault, tmp_path):
    name, message, spoil = FAULTS[fault]
    cfg, made = build(name, tmp_path)
    spoil(cfg, made)
    height, width = made["raw"][0].shape
    message = message.format(
        root=made["data_root"],
        list=made["list_file"],
        images=made["images"][0].parent,
        stem1=made["stems"][1],
        **{f"{kind}{n}": made[f"{kind}s"][n] for kind in ("image", "mask") for n in (0, 1)},
        height=height,
        taller=height + 1,
        width=width,
    )
    with pytest.raises(UserError) as refusal:
        quick_check(cfg)
    assert message in str(refusal.value)
    assert ";" in str(refusal.value)
    report = check_dataset(cfg)
    assert not report.complete
    assert any(message in problem for problem in report.problems), report.problems


@pytest.mark.parametrize(
    "settings, culprit",
    [
        (dict(type="PascalVOC2100Dataset"), "'PascalVOC2100Dataset'"),
        (dict(type="ConcatDataset"), "'ConcatDataset'"),
        (dict(data_prefix=dict(_delete_=True, img_path="JPEGImages")), "seg_map_path"),
        (dict(metainfo=dict(classes=["background", "moon"])), "moon"),
        (dict(colour="red"), "colour"),
    ],
)
def test_settings_of_a_dataset_that_mean_nothing(settings, culprit, tmp_path):
    cfg, _ = build("voc21", tmp_path)
    cfg.merge_from_dict(dict(test_dataloader=dict(dataset=settings)))
    with pytest.raises(UserError, match=culprit):
        quick_check(cfg)


def test_a_part_of_a_benchmark_can_be_evaluated_and_is_remarked(tmp_path):
    cfg, made = build("ade20k", tmp_path)
    cfg.expected_images = 2000
    (remark,) = quick_check(cfg)
    assert f"{made['images'][0].parent} has 3 images, the published benchmark has 2,000" in remark
    report = check_dataset(cfg)
    assert (report.remarks, report.complete) == ([remark], False)


def test_full_opens_all_and_a_sample_does_not(tmp_path):
    cfg, made = build("ade20k", tmp_path, images=9)
    for path, ids in zip(made["masks"][1:4], made["raw"][1:4], strict=True):
        Image.fromarray(np.full_like(ids, 200)).save(path)
    _cut(made["images"][5])
    sampled = check_dataset(cfg, sample=2)
    assert (sampled.opened, sampled.ids, sampled.complete) == (2, 2, True)
    full = check_dataset(cfg, full=True, sample=2, threads=2)
    assert (full.opened, full.sizes, full.ids) == (9, 8, 6)
    image, ids = full.problems
    assert image.startswith(f"image {made['images'][5]} cannot be read")
    assert ids.startswith(f"mask {made['masks'][1]} has id(s) 200")
    assert "(and 2 more of the 9 opened)" in ids


def test_what_does_not_matter(tmp_path):
    """Files that are not listed, and an image that its EXIF data turns by 90 degrees."""
    cfg, made = build("voc21", tmp_path)
    made["images"][0].with_name("2008_000777.jpg").write_text("not an image and not listed")
    height, width = made["raw"][0].shape
    assert height != width
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (height, width)).save(made["images"][0], exif=exif)
    assert check_dataset(cfg, full=True).complete


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
def test_real_files():
    for name, folder, images in (("voc21", "voc2012", 2), ("voc20", "voc2012", 2), ("ade20k", "ade20k", 3)):
        report = check_dataset(load(name, REAL / folder, images), full=True)
        assert report.complete, report.problems
        assert report.ids == images
    for name, folder, converter in (
        ("city_scapes", "cityscapes", "cityscapes.py"),
        ("coco_stuff164k", "coco_stuff", "coco_stuff164k.py"),
        ("coco_object", "coco_stuff", "cvt_coco_object.py"),
    ):
        with pytest.raises(UserError, match=f"is missing.*{converter}"):
            quick_check(load(name, REAL / folder))


def test_command_line(tmp_path, monkeypatch, capsys):
    """All eight, then one that is complete. In this process, which spares it the imports."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return stop.value.code, capsys.readouterr().out

    for name in LAYOUTS:
        if name != "ade20k":
            make_layout(name, tmp_path)
    monkeypatch.setenv("CLEARCLIP_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    code, told = run()
    assert code == 1
    assert "0 of 8 complete" in told
    assert told.count("the published benchmark has") == 7
    assert f"ade20k: root {tmp_path / 'ade/ADEChallengeData2016'} of ade20k does not exist" in told

    own = tmp_path / "own.py"
    own.write_text(f'_base_ = "{CONFIG / "cfg_city_scapes.py"}"\nexpected_images = 3\n')
    code, told = run(own, "--full")
    assert code == 0
    assert "1 of 1 complete" in told
    assert told.count("3/3") == 4
