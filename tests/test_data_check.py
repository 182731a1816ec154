"""Each fault that a benchmark's files can have is named, with its culprit and a remedy."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, make_layout
from mmengine.config import Config
from PIL import Image

from clearclip.data.check import check_cheap, check_dataset
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
def test_whole_benchmarks_are_complete(name, tmp_path):
    cfg, made = build(name, tmp_path)
    assert check_cheap(cfg) == []
    for full in (False, True):
        report = check_dataset(cfg, full)
        assert report.problems == []
        assert report.complete
        assert (report.listed, report.images, report.masks, report.opened, report.sizes, report.ids) == (3,) * 6
    assert report.benchmark.classes == made["num_classes"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_valid_ids_are_those_of_the_layout(name, tmp_path):
    cfg, made = build(name, tmp_path)
    low, high = LAYOUTS[name].ids
    valid = check_dataset(cfg).benchmark.valid_ids
    assert np.flatnonzero(valid).tolist() == [*range(low, high + 1), 255]
    save_like(np.full_like(made["raw"][0], high + 1), made["masks"][0])
    with pytest.raises(UserError, match=rf"id\(s\) {high + 1}, valid are 0\.\.{high} and 255"):
        check_cheap(cfg)


def save_like(ids: np.ndarray, path: Path) -> None:
    Image.fromarray(ids).save(path)


def _no_root(cfg, made):
    made["data_root"].rename(made["data_root"].with_name("elsewhere"))


def _no_list_file(cfg, made):
    made["list_file"].unlink()


def _empty_list_file(cfg, made):
    made["list_file"].write_text("\n \n")


def _list_file_is_binary(cfg, made):
    made["list_file"].write_bytes(b"\xff\xfe\x00\x9f")


def _blank_line(cfg, made):
    made["list_file"].write_text(f"{made['stems'][0]}\n\n{made['stems'][1]}\n{made['stems'][2]}\n")


def _repeated_line(cfg, made):
    made["list_file"].write_text("".join(f"{stem}\n" for stem in [*made["stems"], made["stems"][1]]))


def _list_names_an_image_that_is_not_there(cfg, made):
    made["list_file"].write_text(f"{made['stems'][0]}\n2012_999999\n2012_999998\n")


def _no_image_folder(cfg, made):
    made["images"][0].parent.rename(made["data_root"] / "pictures")


def _no_images(cfg, made):
    for path in made["images"]:
        path.unlink()


def _images_of_another_suffix(cfg, made):
    for path in made["images"]:
        path.rename(path.with_suffix(".jpeg"))


def _image_missing(cfg, made):
    made["images"][1].unlink()


def _masks_missing(cfg, made):
    made["masks"][1].unlink()
    made["masks"][2].unlink()


def _image_link_leads_nowhere(cfg, made):
    made["images"][1].unlink()
    made["images"][1].symlink_to("nowhere.jpg")


def _mask_of_another_size(cfg, made):
    ids = made["raw"][0]
    save_like(np.ascontiguousarray(np.pad(ids, ((0, 1), (0, 0)))), made["masks"][0])


def _mask_of_three_channels(cfg, made):
    save_like(np.repeat(made["raw"][0][..., None], 3, axis=2), made["masks"][0])


def _mask_of_sixteen_bits(cfg, made):
    # The low byte alone would be a valid id.
    save_like(made["raw"][0].astype(np.uint16) // 255 + 256, made["masks"][0])


def _mask_truncated(cfg, made):
    made["masks"][0].write_bytes(made["masks"][0].read_bytes()[:-30])


def _mask_is_text(cfg, made):
    made["masks"][0].write_text("404: Not Found")


def _image_is_text(cfg, made):
    made["images"][0].write_text("404: Not Found")


def _names_file_missing(cfg, made):
    cfg.model.name_path = str(made["data_root"] / "names.txt")


def _names_file_of_other_length(cfg, made):
    (made["data_root"] / "names.txt").write_text("background\nthing\n")
    cfg.model.name_path = str(made["data_root"] / "names.txt")


def _class_names_of_other_length(cfg, made):
    cfg.model.class_names = ["a", "b", "c"]


def _unknown_dataset(cfg, made):
    cfg.test_dataloader.dataset.type = "PascalVOC2100Dataset"


FAULTS = [
    (_no_root, "voc21", "root {root} of voc21 does not exist; prepare it as datasets/README.md says"),
    (_no_list_file, "voc21", "list file {list} does not exist;"),
    (_empty_list_file, "voc20", "list file {list} is empty;"),
    (_list_file_is_binary, "voc21", "list file {list} cannot be read"),
    (_blank_line, "context60", "line 2 of list file {list} is blank; remove it"),
    (_repeated_line, "context59", "list file {list} has {stem1} more than once;"),
    (
        _list_names_an_image_that_is_not_there,
        "voc21",
        "image {images}/2012_999999.jpg is missing (2 of 3 are missing);",
    ),
    (_no_image_folder, "ade20k", "folder {images} does not exist;"),
    (_no_images, "city_scapes", "has no image (*_leftImg8bit.png);"),
    (_images_of_another_suffix, "coco_stuff164k", "folder {images} has no image (*.jpg);"),
    (_image_missing, "voc21", "image {image1} is missing;"),
    (_masks_missing, "coco_object", "(2 of 3 are missing); make the masks with datasets/cvt_coco_object.py"),
    (_masks_missing, "coco_stuff164k", "(2 of 3 are missing); make the masks with MMSegmentation's coco_stuff164k.py"),
    (_masks_missing, "city_scapes", "(2 of 3 are missing); make the masks with MMSegmentation's cityscapes.py"),
    (_masks_missing, "context59", "(2 of 3 are missing); make the masks with MMSegmentation's pascal_context.py"),
    (_masks_missing, "ade20k", "mask {mask1} is missing (2 of 3 are missing);"),
    (_image_link_leads_nowhere, "coco_object", "image {image1} is a link to a file that does not exist;"),
    (_mask_of_another_size, "ade20k", "mask {mask0} is {width}x{taller}, its image {width}x{height};"),
    (_mask_of_three_channels, "voc21", "mask {mask0} has 3 channels"),
    (_mask_of_sixteen_bits, "ade20k", "mask {mask0} has id(s) 256, valid are 0..150 and 255;"),
    (_mask_truncated, "ade20k", "mask {mask0} cannot be read"),
    (_mask_is_text, "coco_object", "mask {mask0} cannot be read"),
    (_image_is_text, "coco_object", "image {image0} cannot be read"),
    (_names_file_missing, "voc21", "names.txt cannot be read"),
    (_names_file_of_other_length, "voc21", "names.txt has 2 classes, voc21 has 21;"),
    (_class_names_of_other_length, "ade20k", "class_names has 3 classes, ade20k has 150;"),
    (_unknown_dataset, "voc21", "dataset type 'PascalVOC2100Dataset' is none of"),
]


@pytest.mark.parametrize("spoil, name, message", FAULTS, ids=[f"{f.__name__.strip('_')}-{n}" for f, n, _ in FAULTS])
def test_each_fault_is_named(spoil, name, message, tmp_path):
    cfg, made = build(name, tmp_path)
    spoil(cfg, made)
    height, width = made["raw"][0].shape
    message = message.format(
        root=made["data_root"],
        list=made["list_file"],
        images=made["images"][0].parent,
        stem1=made["stems"][1],
        image0=made["images"][0],
        image1=made["images"][1],
        mask0=made["masks"][0],
        mask1=made["masks"][1],
        height=height,
        taller=height + 1,
        width=width,
    )
    with pytest.raises(UserError) as cheap:
        check_cheap(cfg)
    assert message in str(cheap.value)
    assert ";" in str(cheap.value)

    if spoil not in (_names_file_missing, _unknown_dataset):  # faults of the config, not of the data
        report = check_dataset(cfg)
        assert not report.complete
        assert any(message in str(problem) for problem in report.problems), report.problems


def test_number_of_images(tmp_path):
    cfg, made = build("ade20k", tmp_path)
    cfg.expected_images = 2000
    told = f"{made['images'][0].parent} has 3 images, the published benchmark has 2,000"
    # A part of the benchmark can be evaluated; it is said that it is a part.
    assert check_cheap(cfg) == [told]
    assert [problem.fault for problem in check_dataset(cfg).problems] == [told]
    cfg.expected_images = None
    assert check_cheap(cfg) == []
    assert check_dataset(cfg).complete


def test_truncated_image_needs_the_decoding_check(tmp_path):
    cfg, made = build("ade20k", tmp_path)
    path = made["images"][2]
    path.write_bytes(path.read_bytes()[:-50])
    (problem,) = check_dataset(cfg).problems
    assert f"image {path} cannot be read" in problem.fault


def test_full_opens_all_and_a_sample_does_not(tmp_path):
    cfg, made = build("ade20k", tmp_path, images=9)
    for path, ids in zip(made["masks"][1:4], made["raw"][1:4], strict=True):
        save_like(np.full_like(ids, 200), path)
    sampled = check_dataset(cfg, sample=2)
    assert (sampled.opened, sampled.ids, sampled.complete) == (2, 2, True)
    for nproc in (1, 2):
        full = check_dataset(cfg, full=True, sample=2, nproc=nproc)
        assert (full.opened, full.sizes, full.ids) == (9, 9, 6)
        (problem,) = full.problems
        assert problem.fault.startswith(f"mask {made['masks'][1]} has id(s) 200")
        assert problem.fault.endswith("(and 2 more of the 9 opened)")


def test_files_that_are_not_listed_do_not_matter(tmp_path):
    cfg, made = build("voc21", tmp_path)
    folder = made["images"][0].parent
    (folder / "2008_000777.jpg").write_text("not an image and not listed")
    (folder / ".hidden.jpg").write_text("")
    assert check_dataset(cfg, full=True).complete


def test_image_turned_by_exif_is_measured_as_it_is_read(tmp_path):
    cfg, made = build("ade20k", tmp_path)
    height, width = made["raw"][0].shape
    assert height != width
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (height, width)).save(made["images"][0], exif=exif)
    assert check_dataset(cfg, full=True).complete


def test_custom_classes_and_suffixes_of_a_config(tmp_path):
    cfg, made = build("ade20k", tmp_path)
    for path in made["images"]:
        path.rename(path.with_suffix(".JPEG"))
    cfg.test_dataloader.dataset.img_suffix = ".JPEG"
    cfg.test_dataloader.dataset.data_prefix.seg_map_path = str(made["masks"][0].parent)
    assert check_dataset(cfg, full=True).complete
    cfg.test_dataloader.dataset.reduce_zero_label = False
    assert check_dataset(cfg).benchmark.valid_ids.sum() == 151


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
@pytest.mark.parametrize(
    "name, folder, images", [("voc21", "voc2012", 2), ("voc20", "voc2012", 2), ("ade20k", "ade20k", 3)]
)
def test_real_files(name, folder, images):
    report = check_dataset(load(name, REAL / folder, images), full=True)
    assert report.complete, report.problems
    assert report.ids == images


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
def test_real_files_that_are_not_converted_yet():
    for name, folder, converter in (
        ("city_scapes", "cityscapes", "cityscapes.py"),
        ("coco_stuff164k", "coco_stuff", "coco_stuff164k.py"),
        ("coco_object", "coco_stuff", "cvt_coco_object.py"),
    ):
        with pytest.raises(UserError, match=f"is missing.*{converter}"):
            check_cheap(load(name, REAL / folder))


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Run the script in this process, which spares it the imports. Returns exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return stop.value.code, *capsys.readouterr()

    return run


def test_command_line_over_all_eight(tmp_path, monkeypatch, command_line):
    for name in LAYOUTS:
        if name != "city_scapes":
            make_layout(name, tmp_path)
    monkeypatch.setenv("CLEARCLIP_DATA", str(tmp_path))
    code, told, _ = command_line()
    assert code == 1
    assert "0 of 8 complete" in told
    assert told.count("the published benchmark has") == 7
    assert f"city_scapes: root {tmp_path / 'cityscapes'} of city_scapes does not exist" in told
    for name in LAYOUTS:
        assert f"  {name} " in told


def test_command_line_on_a_complete_one(tmp_path):
    made = make_layout("city_scapes", tmp_path)
    own = tmp_path / "own.py"
    own.write_text(f'_base_ = "{CONFIG / "cfg_city_scapes.py"}"\nexpected_images = 3\n')
    done = subprocess.run(
        [sys.executable, SCRIPT, own, "--full", "--data-root", made["data_root"]],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 complete" in done.stdout
    assert done.stdout.count("3/3") == 4


def test_command_line_refuses_in_one_line(tmp_path, command_line):
    for arguments, culprit in (
        ([tmp_path / "cfg_none.py"], "cfg_none.py"),
        (["--sample", 0], "--sample 0"),
        (["--nproc", "many"], "--nproc"),
    ):
        code, _, error = command_line(*arguments)
        assert code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert culprit in error
