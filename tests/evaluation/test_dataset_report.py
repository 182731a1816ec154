"""Each kind of fault that a dataset's files can have is named, with its remedy."""

import os
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from colour_model import config, copied
from layouts import LAYOUTS, make_layout
from mmengine.config import Config
from PIL import Image

from clearclip import UserError
from clearclip.evaluation.dataset_report import check_dataset, quick_check

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "config"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", REPOSITORY.parent / "shared" / "real_samples"))


def load(name: str, data_root: Path, expected: int | None = 3) -> Config:
    cfg = Config.fromfile(CONFIG / f"cfg_{name}.py")
    cfg.test_dataloader.dataset.data_root = str(data_root)
    cfg.expected_images = expected
    return cfg


@pytest.mark.parametrize("name", LAYOUTS)
def test_whole_benchmarks_are_complete_and_their_ids_known(name, tmp_path):
    made = make_layout(name, tmp_path)
    cfg = load(name, made["data_root"])
    report = check_dataset(cfg, sample=None, threads=2)
    assert (report.images, report.images_with_mask, report.opened, report.valid) == (3,) * 4
    assert report.complete and report.remarks == []
    high = LAYOUTS[name].ids[1]
    Image.fromarray(np.full_like(made["raw"][0], high + 1)).save(made["masks"][0])
    with pytest.raises(UserError, match=rf"id\(s\) \[{high + 1}\], which are neither a class nor ignored;"):
        quick_check(cfg)


def spoil(made, change):
    """Change the first mask."""
    Image.fromarray(np.ascontiguousarray(change(made["raw"][0]))).save(made["masks"][0])


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


# One for each kind of fault: benchmark, message, how it comes about in what make_layout made.
FAULTS = {
    "no_root": ("voc21", "root {data_root} does not exist;", lambda m: shutil.rmtree(m["data_root"])),
    "no_list": ("voc21", "{list_file} does not exist;", lambda m: m["list_file"].unlink()),
    "blank_line": ("voc20", "/.jpg is missing (1 of 2", lambda m: m["list_file"].write_text("2007_000001\n\n")),
    "twice": ("voc21", "{list_file} names an image more", lambda m: m["list_file"].write_text("2007_000001\n" * 2)),
    "no_folder": ("ade20k", "images/validation does not exist;", lambda m: shutil.rmtree(m["images"][0].parent)),
    "no_images": ("city_scapes", "has no image (*_leftImg8bit.png);", lambda m: [p.unlink() for p in m["images"]]),
    "image": ("voc21", "image {images[1]} is missing (1 of 3", lambda m: m["images"][1].unlink()),
    "masks": ("coco_object", "mask {masks[1]} is missing (2 of 3", lambda m: [p.unlink() for p in m["masks"][1:]]),
    "size": ("ade20k", "mask {masks[0]} has shape (", lambda m: spoil(m, lambda mask: mask[1:])),
    "channels": ("voc21", "mask {masks[0]} has shape (", lambda m: spoil(m, lambda mask: np.dstack([mask] * 3))),
    # The low byte alone would be a valid id.
    "16_bits": ("voc21", "has id(s) [256], which", lambda m: spoil(m, lambda mask: np.full_like(mask, 256, np.uint16))),
    "cut_mask": ("ade20k", "{masks[0]} cannot be read", lambda m: cut(m["masks"][0])),
    "text_image": ("ade20k", "{images[0]} cannot be read", lambda m: m["images"][0].write_text("404: Not Found")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(fault, tmp_path):
    name, message, break_it = FAULTS[fault]
    made = make_layout(name, tmp_path)
    break_it(made)
    cfg = load(name, made["data_root"])
    with pytest.raises(UserError) as refusal:
        quick_check(cfg)
    assert message.format(**made) in str(refusal.value)
    assert "; " in str(refusal.value)
    report = check_dataset(cfg)
    assert str(refusal.value) == report.problems[0] and not report.complete


def test_class_words_of_another_dataset(tmp_path):
    cfg = load("voc21", make_layout("voc21", tmp_path)["data_root"])
    cfg.model.name_path = str(CONFIG / "cls_voc20.txt")
    with pytest.raises(UserError, match="voc21 has 20 classes, the dataset 21;"):
        quick_check(cfg)


def test_a_part_of_a_benchmark_can_be_evaluated_and_is_remarked(tmp_path):
    made = make_layout("ade20k", tmp_path)
    cfg = load("ade20k", made["data_root"], expected=2000)
    (remark,) = quick_check(cfg)
    assert f"{made['images'][0].parent} has 3 images, the published benchmark has 2,000" in remark
    assert not check_dataset(cfg).complete


def test_all_are_opened_and_a_sample_is_not(tmp_path):
    made = make_layout("ade20k", tmp_path, images=9)
    cfg = load("ade20k", made["data_root"], expected=9)
    Image.fromarray(np.full_like(made["raw"][1], 200)).save(made["masks"][1])
    cut(made["images"][5])
    sampled = check_dataset(cfg, sample=2)
    assert (sampled.opened, sampled.valid, sampled.complete) == (2, 2, True)
    full = check_dataset(cfg, sample=None)
    assert (full.opened, full.valid) == (9, 7)
    assert full.problems[0].startswith(f"2 of the 9 pairs opened are wrong: mask {made['masks'][1]} has id(s) [200]")


def test_an_image_that_its_exif_data_turns(tmp_path):
    made = make_layout("voc21", tmp_path)
    height, width = made["raw"][0].shape
    assert height != width
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (height, width)).save(made["images"][0], exif=exif)
    assert check_dataset(load("voc21", made["data_root"]), sample=None).complete


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
def test_real_files():
    for name, folder, images in (("voc21", "voc2012", 2), ("voc20", "voc2012", 2), ("ade20k", "ade20k", 3)):
        assert check_dataset(load(name, REAL / folder, images), sample=None).complete
    for name, folder in (("city_scapes", "cityscapes"), ("coco_stuff164k", "coco_stuff")):
        with pytest.raises(UserError, match="is missing"):
            quick_check(load(name, REAL / folder))


def test_command_line(tmp_path, monkeypatch, capsys):
    """All eight, then one that is complete. In this process, which spares it the imports."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["check.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(REPOSITORY / "datasets" / "check.py"), run_name="__main__")
        return stop.value.code, capsys.readouterr().out

    for name in ("voc21", "context60", "coco_object", "coco_stuff164k", "city_scapes"):
        make_layout(name, tmp_path)
    monkeypatch.setenv("CLEARCLIP_DATA", str(tmp_path))
    code, told = run()
    assert code == 1
    assert "0 of 8 complete" in told
    assert told.count("the published benchmark has") == 7
    assert f"ade20k: root {tmp_path / 'ade/ADEChallengeData2016'} does not exist" in told

    code, told = run("large", "remote")
    assert code == 1
    assert "0 of 10 complete" in told
    assert f"ade847: root {tmp_path / 'ADE20K_2021_17_01'} does not exist" in told

    own = tmp_path / "own.py"
    own.write_text(f'_base_ = "{CONFIG / "cfg_city_scapes.py"}"\nexpected_images = 3\n')
    code, told = run(own, "--full")
    assert code == 0
    assert "1 of 1 complete" in told
    assert told.count("3/3") == 2


def test_a_single_class_is_remarked(tmp_path):
    """Every pixel that counts gets it, so its mIoU is 100 whatever the model does."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (9, 7)).save(tmp_path / "images" / "a.jpg")
    Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9) % 2).save(tmp_path / "masks" / "a.png")
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        reduce_zero_label=True,
        metainfo=dict(classes=["house"]),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    )
    cfg = Config(dict(model=dict(class_names=["house"]), test_dataloader=dict(dataset=dataset)))
    (remark,) = quick_check(cfg)
    assert remark.startswith("there is one class, house") and "mIoU is always 100" in remark and "background" in remark


def test_every_wrong_file_is_listed(tmp_path, monkeypatch, capsys):
    made = make_layout("ade20k", tmp_path, images=5)
    for number in (1, 3):
        Image.fromarray(np.full_like(made["raw"][number], 200)).save(made["masks"][number])
    own = tmp_path / "own.py"
    own.write_text(f'_base_ = "{CONFIG / "cfg_ade20k.py"}"\nexpected_images = 5\n')
    monkeypatch.setattr(sys, "argv", ["clearclip", "check", str(own), "--full", "--data-root", str(made["data_root"])])
    from clearclip.commands.main import main

    assert main() == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ade20k: wrong: mask")]
    assert [str(made["masks"][number]) in line for number, line in zip((1, 3), lines, strict=True)] == [True, True]


def test_masks_of_0_and_255_for_two_classes(data, tmp_path):
    root = copied(data, tmp_path)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
    two = config(root, type="BaseSegDataset", metainfo=dict(classes=["background", "lesion"]))
    (remark,) = quick_check(two)
    assert "class 1 (lesion) is never counted" in remark and "need 0 and 1" in remark


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (lambda root: (root / "images/1.png").rename(root / "images/1.PNG"), "1 images in .* rename them"),
        (lambda root: (root / "list.txt").write_text("3\n\n1\n"), "list.txt has a blank line: remove it"),
        (lambda root: (root / "list.txt").write_text("3.png\n1.png\n"), "names images with their suffix"),
        (lambda root: (root / "list.txt").write_text("\ufeff3\n1\n"), "without a byte order mark"),
        (lambda root: (root / "list.txt").write_bytes(b"caf\xe9\n"), "list.txt is not UTF-8 text"),
    ],
    ids=["mixed suffixes", "blank line", "suffixes in the list", "byte order mark", "Latin-1"],
)
def test_lists_and_suffixes(changes, words, data, tmp_path):
    root = copied(data, tmp_path)
    changes(root)
    options = {} if "rename" in words else dict(ann_file="list.txt")
    report = check_dataset(config(root, **options))
    assert not report.complete and re.search(words, report.problems[0])
