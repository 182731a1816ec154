"""demo.py: what it writes for all kinds of arguments, and what it says to bad ones."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip import METHODS, ClearCLIP, ModelSettings, UserError, build_method
from clearclip.commands import demo as command
from clearclip.commands.command_line import import_file, run_command
from clearclip.commands.demo_parser import demo_parser
from clearclip.commands.model_arguments import DRAWN_ONLY, SCENES, is_miniature, read_settings
from clearclip.commands.model_flags import MODEL_FLAGS
from clearclip.miniature import CLASSES, PALETTE
from clearclip.results.table_definitions import FAMILY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a folder of its own, with two photographs in photos/."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, size in (("a.png", (60, 90, 3)), ("b.jpg", (80, 50, 3))):
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path


def run(*arguments: str) -> int:
    """The exit code, as a shell would see it."""
    return run_command(lambda: command.demo_command([str(argument) for argument in arguments]))


def note(path: str) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_files_agree_with_each_other_and_with_segment(quick_name: str, capsys: pytest.CaptureFixture) -> None:
    arguments = ("--model", quick_name, "--slide-crop", "64", "--slide-stride", "32", "--model-type", "SCLIP")
    words = "sky, old  tree ,sky, grass,"
    assert run("photos/a.png", "--classes", words, *arguments, "--ignore-residual", "--out", "new/out") == 0
    out = Path("new/out")
    assert sorted(path.name for path in out.iterdir()) == ["a_labels.json", "a_labels.png", "a_segmentation.png"]
    labels = np.asarray(Image.open(out / "a_labels.png"))
    model = ClearCLIP.from_pretrained(quick_name, slide_crop=64, slide_stride=32, method="SCLIP + ClearCLIP")
    expected = model.segment("photos/a.png", ["sky", "old tree", "grass"])
    assert labels.dtype == np.uint8 and (labels == expected.labels).all()
    found = note(out / "a_labels.json")
    assert (found["width"], found["height"], found["labels"]) == (90, 60, "a_labels.png")
    assert found["method"] == "SCLIP + ClearCLIP" and found["prob_thd"] == 0
    assert [(entry["id"], entry["name"]) for entry in found["classes"]] == [(0, "sky"), (1, "old tree"), (2, "grass")]
    for entry in found["classes"]:
        assert entry["pixels"] == (labels == entry["id"]).sum() and entry["share"] == entry["pixels"] / 5400
        assert entry["colour"] == "#{:02x}{:02x}{:02x}".format(*expected.colours[entry["id"]])
    assert str(out / "a_segmentation.png") in capsys.readouterr().out


def test_options_are_those_of_model_settings() -> None:
    """Every option reaches ModelSettings with its type; those not given leave its default."""
    given = "--clip-type CLIP --vit-type ViT-L/14 --pretrained x.pt --no-quick-gelu --precision fp32 --no-cached"
    args = demo_parser().parse_args([*given.split(), "--prob-thd", ".5", "--slide-crop", "9", "--slide-stride", "3"])
    settings = read_settings(args)
    assert (settings.clip_type, settings.vit_type, settings.pretrained) == ("CLIP", "ViT-L/14", "x.pt")
    assert (settings.quick_gelu, settings.cached, settings.prob_thd) == (False, False, 0.5)
    assert (settings.slide_crop, settings.slide_stride, settings.device) == (9, 3, None)
    assert read_settings(demo_parser().parse_args(["photo.jpg"])).facts() == ModelSettings().facts()
    assert is_miniature(read_settings(demo_parser().parse_args([])))
    text = " ".join(demo_parser().format_help().split())
    assert all(ModelSettings.help(name) in text for name in MODEL_FLAGS)


def fits(model: ClearCLIP, name: str) -> bool:
    """Whether a model has the blocks and the second encoder for a method."""
    with contextlib.suppress(UserError):
        model.check(build_method(name))
        return True
    return False


def test_folder_compare_and_heatmaps(tiny_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is what its method gives alone, and comparing changes no label."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # ProxyCLIP's second encoder
    compared, draw = [], command.comparison_page
    monkeypatch.setattr(
        command, "comparison_page", lambda results, truth: compared.append(results) or draw(results, truth)
    )
    windows = ("--slide-crop", "64", "--slide-stride", "64")
    common = (
        "photos",
        "--classes",
        "sky,tree,sea",
        "--model",
        tiny_name,
        "--model-type",
        "MaskCLIP + ClearCLIP",
        *windows,
    )
    assert run(*common, "--compare", "--heatmaps", "--out", "out") == 0
    endings = ("compare.png", "heatmaps.png", "labels.json", "labels.png", "segmentation.png")
    expected = [f"{k}_{ending}" for k in "ab" for ending in endings] + ["shares.csv"]
    assert sorted(path.name for path in Path("out").iterdir()) == expected
    model = ClearCLIP.from_pretrained(tiny_name, slide_crop=64, slide_stride=64)
    assert list(compared[0]) == [name for name in (*FAMILY, "MaskCLIP + ClearCLIP") if fits(model, name)]
    for name, result in compared[1].items():
        [alone] = model.compare("photos/b.jpg", ["sky", "tree", "sea"], [name]).values()
        assert (alone.labels == result.labels).all(), name
    assert run("photos/*.jpg", *common[1:], "--compare", "SCLIP", "CLIP", "--out", "two") == 0
    assert Path("out/b_labels.png").read_bytes() == Path("two/b_labels.png").read_bytes()
    assert list(compared[2]) == ["SCLIP", "CLIP"] and not Path("two/a_labels.png").exists()


def test_a_shallow_model_is_compared_by_what_it_can(quick_name: str, monkeypatch, capsys) -> None:
    """It has two blocks: the methods that need more are left out, and are an error where they are asked for."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # ProxyCLIP's second encoder
    compared, draw = [], command.comparison_page
    monkeypatch.setattr(
        command, "comparison_page", lambda results, truth: compared.append(list(results)) or draw(results, truth)
    )
    common = ("photos/a.png", "--classes", "sky,tree", "--model", quick_name, "--out", "out")
    assert run(*common, "--compare") == 0
    model = ClearCLIP.from_pretrained(quick_name)
    assert compared == [[name for name in FAMILY if fits(model, name)]] and "PEARL" in compared[0]
    said = [line.partition(" is left out")[0] for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert said == [f"warning: {name}" for name in FAMILY if not fits(model, name)] and "warning: GEM" in said
    assert run(*common, "--compare", "CLIP", "GEM") == 2


def test_images_after_compare_are_images(quick_name: str) -> None:
    """argparse takes all words up to the next option for the names of methods."""
    common = ("--classes", "sky,tree", "--model", quick_name)
    assert run(*common, "--out", "one", "--compare", "CLIP", "photos/a.png") == 0
    assert run(*common, "--out", "all", "--compare", "CLIP", "ClearCLIP", "photos") == 0
    assert run(*common, "--out", "pattern", "--compare", "CLIP", "photos/*.jpg") == 0
    written = [sorted(path.name for path in Path(folder).glob("*compare.png")) for folder in ("one", "all", "pattern")]
    assert written == [["a_compare.png"], ["a_compare.png", "b_compare.png"], ["b_compare.png"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.jpg", "no image at none.jpg"), ("clearclip", "unknown method 'clearclip'; did you mean ClearCLIP?")],
)
def test_what_is_neither_a_method_nor_an_image(name: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert run("photos/a.png", "--classes", "sky", "--compare", name) == 2
    assert message in capsys.readouterr().err


def test_a_method_of_the_users_own(capsys: pytest.CaptureFixture) -> None:
    Path("mine.py").write_text("from clearclip import METHODS, LastBlock\nMETHODS.register_module('Mine', LastBlock)\n")
    try:
        import_file(Path("mine.py"))
        assert read_settings(demo_parser().parse_args(["--model-type", "Mine"])).method.label
        Path("again.py").write_text(Path("mine.py").read_text())
        with pytest.raises(UserError, match=r"again.py: KeyError in line 2: 'Mine is already registered'"):
            import_file(Path("again.py"))
    finally:
        METHODS.pop("Mine", None)
        sys.modules.pop("mine", None)


def test_threshold_background_and_synonyms(quick_name: str) -> None:
    common = ("photos/a.png", "--model", quick_name, "--out", "out")
    assert run(*common, "--classes", "sky,tree", "--prob-thd", "1") == 0
    found = note("out/a_labels.json")
    assert [entry["name"] for entry in found["classes"]] == ["background", "sky", "tree"]
    assert found["classes"][0]["share"] > 0.99 and found["prob_thd"] == 1, "hardly a pixel has a probability of 1"
    Path("names.txt").write_text("sky, clouds\n\ufefftree\n", encoding="utf-8")
    assert run(*common, "--name-path", "names.txt", "--background") == 0
    assert [entry["words"] for entry in note("out/a_labels.json")["classes"]][:2] == [["background"], ["sky", "clouds"]]


def test_a_bad_image_is_passed_over(quick_name: str, capsys: pytest.CaptureFixture) -> None:
    Path("photos/aa.png").write_text("no image")
    assert run("photos", "--classes", "sky,tree", "--model", quick_name, "--out", "out") == 2
    assert sorted(path.name for path in Path("out").glob("*_labels.png")) == ["a_labels.png", "b_labels.png"]
    error = capsys.readouterr().err
    assert "photos/aa.png cannot be read" in error
    assert error.rstrip().endswith("images failed: photos/aa.png"), "said again at the end"


def test_nothing_is_replaced_that_was_read(quick_name: str) -> None:
    """Images of one name in two folders, and an image that is called like an output."""
    Path("more").mkdir()
    Image.new("RGB", (20, 20)).save("more/a.png")
    Image.new("RGB", (20, 20)).save("photos/b_segmentation.png")
    before = Path("photos/b_segmentation.png").read_bytes()
    assert run("photos", "more", "--classes", "sky,tree", "--model", quick_name, "--out", "photos") == 0
    assert Path("photos/b_segmentation.png").read_bytes() == before
    sizes = {"a": (90, 60), "a_2": (20, 20), "b_2": (50, 80), "b_segmentation": (20, 20)}
    assert {stem: Image.open(f"photos/{stem}_labels.png").size for stem in sizes} == sizes


def test_a_second_run_computes_what_is_missing(
    quick_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """With the photos' own folder as --out: results are no images, and nothing is computed twice."""
    segmented, segment = [], command.segment
    monkeypatch.setattr(command, "segment", lambda *args: segmented.append(args[1]) or segment(*args))
    common = ("photos", "--classes", "sky,tree", "--model", quick_name, "--out", "photos", "--skip-existing")
    for extra, count in (((), 2), ((), 0), (("--heatmaps",), 2), (("--heatmaps",), 0), (("--short-side", "60"), 2)):
        segmented.clear()
        assert run(*common, *extra) == 0
        assert len(segmented) == count, extra
    captured = capsys.readouterr()
    assert "[1/2] photos/a_segmentation.png  (is there)" in captured.out
    assert "results of an earlier run: 6" in captured.err
    for change in (
        lambda: Path("photos/b_labels.png").unlink(),
        lambda: Image.new("RGB", (30, 20)).save("photos/b.jpg"),
        lambda: Path("photos/b_labels.json").write_text("damaged"),
    ):
        change()
        segmented.clear()
        # What is no longer known as a result is an image again: the search names the photos themselves.
        assert run("photos/a.png", "photos/b.jpg", *common[1:], "--short-side", "60") == 0
        assert len(segmented) == 1
    assert run("photos/a.png", *common[1:2], "sky,boat", *common[3:], "--short-side", "60") == 0
    assert len(segmented) == 2, "other words"


def test_subfolders_and_tables(quick_name: str, capsys: pytest.CaptureFixture) -> None:
    """A folder is mirrored; its table, COCO file and CVAT archive have what the label maps say."""
    Path("photos/trip").mkdir()
    Image.new("RGB", (20, 10)).save("photos/trip/a.png")
    classes = "sky, image, небо"
    assert run("photos", "--classes", classes, "--model", quick_name, "--out", "out", "--coco", "--cvat") == 0
    names = ["a.png", "b.jpg", "trip/a.png"]
    maps = [np.asarray(Image.open(f"out/{name.rpartition('.')[0]}_labels.png")) for name in names]
    with open("out/shares.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"photos/{name}" for name in names]
    for row, labels in zip(rows, maps, strict=True):
        assert (int(row["height"]), int(row["width"])) == labels.shape
        shares = [float(row[name]) for name in ("sky", "image (class)", "небо")]
        np.testing.assert_allclose(shares, np.bincount(labels.ravel(), minlength=3) / labels.size, atol=1e-6)
    coco = json.loads(Path("out/coco.json").read_text(encoding="utf-8"))
    assert [image["file_name"] for image in coco["images"]] == names
    for image, labels in zip(coco["images"], maps, strict=True):
        areas = {one["category_id"]: one["area"] for one in coco["annotations"] if one["image_id"] == image["id"]}
        assert areas == {label + 1: (labels == label).sum() for label in np.unique(labels)}
    with zipfile.ZipFile("out/cvat.zip") as archive:
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split() == ["a", "b", "trip/a"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["[1/3]", "[2/3]", "[3/3]"]


def test_what_was_seen_of_a_large_picture(quick_name: str, capsys: pytest.CaptureFixture) -> None:
    common = ("photos/a.png", "--classes", "sky,tree", "--model", quick_name, "--out", "out")
    assert run(*common, "--short-side", "30", "--slide-crop", "0") == 0
    assert "a.png: 90 × 60 pixels, of which the model sees 45 × 30 (short side 30" in capsys.readouterr().out
    assert note("out/a_labels.json")["seen"] == {"width": 45, "height": 30}
    assert run(*common, "--short-side", "60") == 0
    assert "the model sees" not in capsys.readouterr().out
    model = ClearCLIP.from_pretrained(quick_name, short_side=60)
    expected = model.segment("photos/a.png", ["sky", "tree"]).labels
    assert (np.asarray(Image.open("out/a_labels.png")) == expected).all()


def test_pictures_for_papers(quick_name: str) -> None:
    common = ("photos/a.png", "--classes", "sky,tree", "--model", quick_name, "--out", "out")
    assert run(*common, "--format", "svg", "--heatmaps", "--compare", "CLIP") == 0
    for kind in ("segmentation", "heatmaps", "compare"):
        assert Path(f"out/a_{kind}.svg").read_text().startswith("<?xml")
    assert run(*common, "--format", "pdf") == 0 and Path("out/a_segmentation.pdf").read_bytes().startswith(b"%PDF")


def test_a_run_that_is_interrupted_says_how_to_go_on(
    quick_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    segment = command.segment
    calls: list[int] = []

    def interrupt(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return segment(*args)

    monkeypatch.setattr(command, "segment", interrupt)
    common = ("photos", "--classes", "sky,tree", "--model", quick_name, "--out", "out", "--skip-existing")
    assert run(*common) == 130
    assert "interrupted; 1 of 2 images are done; the same command with --skip-existing" in capsys.readouterr().err
    assert run(*common) == 0 and len(calls) == 3
    with open("out/shares.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_quotes_that_are_missing(capsys: pytest.CaptureFixture) -> None:
    for line in ("--classes sky, tree photos/a.png", "photos/a.png --classes sky tree"):
        assert run(*line.split()) == 2
        assert 'photos/a.png --classes "sky, tree"' in capsys.readouterr().err


def test_names_of_all_kinds(quick_name: str, capsys: pytest.CaptureFixture) -> None:
    """Not UTF-8, and nearly as long as a file system takes."""
    names = [os.fsdecode(b"caf\xe9.png"), "ö" * 125 + ".png"]
    for name in names:
        os.link("photos/a.png", name)
    assert run(*names, "--classes", "sky,tree", "--model", quick_name, "--out", "out") == 0
    assert note(os.fsdecode(b"out/caf\xe9_labels.json"))["image"] == names[0]
    assert note(f"out/{'ö' * 100}_labels.json")["image"] == names[1]
    for name in ("x" * 400, "x" * 5000, "a\0b"):
        assert run(name, "--classes", "sky,tree") == run("photos", "--classes", "sky,tree", "--out", name) == 2
    for option in ("--pretrained", "--name-path", "--import"):
        assert run("photos", option, "x" * 5000) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 9 and max(map(len, lines)) < 1200


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """As in a container whose user has no entry: libraries stop when they are imported."""
    monkeypatch.setenv("HOME", "")  # restored afterwards
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])
    assert run_command(lambda: print(Path.home())) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_dir() and "warning: there is no home folder" in err
    Path(out.strip()).rmdir()


def test_the_miniature_says_what_it_does_not_know(capsys: pytest.CaptureFixture) -> None:
    assert run("photos/a.png", "--model", "miniature", "--out", "out") == 0
    assert f"warning: {DRAWN_ONLY}" in capsys.readouterr().err
    assert run(SCENES[0], "--model", "miniature", "--out", "out") == 0
    assert DRAWN_ONLY not in capsys.readouterr().err


def test_bundled_miniature_from_the_shell() -> None:
    """No arguments, no network: the scenes, in the miniature's own colours."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "demo.py"], capture_output=True, text=True, env=offline, check=False)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    for scene in SCENES:
        classes = note(f"outputs/demo/{scene.stem}_labels.json")["classes"]
        colours = {entry["name"]: entry["colour"] for entry in classes}
        assert colours == {name: "#{:02x}{:02x}{:02x}".format(*PALETTE[k]) for k, name in enumerate(CLASSES)}
