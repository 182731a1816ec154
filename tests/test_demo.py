"""demo.py: what it writes for all kinds of arguments, and what it says to bad ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip import METHODS, ClearCLIP, ModelSettings, UserError
from clearclip.demo import command, models
from clearclip.demo.inputs import SCENES, find_images, read_words, with_background
from clearclip.demo.outputs import free_stem
from clearclip.errors import run_command
from clearclip.miniature import CLASSES, PALETTE
from clearclip.text import ClassWords

ROOT = Path(__file__).resolve().parent.parent
OWN_METHOD = """
from __future__ import annotations
from dataclasses import dataclass
from clearclip import METHODS, Method

@METHODS.register_module("MyMethod")
@dataclass(frozen=True)
class MyMethod(Method):
    factor: float = 1.0

    def __call__(self, blocks, x, context):
        return -self.factor * x
"""


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
    return run_command(lambda: command.main([str(argument) for argument in arguments]))


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
    assert Image.open(out / "a_segmentation.png").width > 90
    printed = capsys.readouterr().out
    assert str(out / "a_segmentation.png") in printed and "_labels.json" in printed


def test_options_are_those_of_model_settings() -> None:
    """Every option reaches ModelSettings with its type; those not given leave its default."""
    given = "--clip-type CLIP --vit-type ViT-L/14 --pretrained x.pt --no-quick-gelu --precision fp32 --no-cached"
    args = command.parser().parse_args([*given.split(), "--prob-thd", ".5", "--slide-crop", "9", "--slide-stride", "3"])
    settings = ModelSettings(**models.read_options(args)[0])
    assert (settings.clip_type, settings.vit_type, settings.pretrained) == ("CLIP", "ViT-L/14", "x.pt")
    assert (settings.quick_gelu, settings.cached, settings.prob_thd) == (False, False, 0.5)
    assert (settings.slide_crop, settings.slide_stride, settings.device) == (9, 3, None)
    for arguments, names in ((["photo.jpg"], {"method"}), ([], {"method", "model_name"})):
        assert models.read_options(command.parser().parse_args(arguments))[0].keys() == names
    text = " ".join(command.parser().format_help().split())
    assert all(ModelSettings.help(name) in text for name in models.OPTIONS)


def test_folder_compare_and_heatmaps(quick_name: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """A row is what its method gives alone, and comparing changes no label."""
    compared, draw = [], command.compare_picture
    monkeypatch.setattr(command, "compare_picture", lambda results: compared.append(results) or draw(results))
    common = ("photos", "--classes", "sky,tree,sea", "--model", quick_name, "--model-type", "MaskCLIP + ClearCLIP")
    assert run(*common, "--compare", "--heatmaps", "--out", "out") == 0
    endings = ("_compare.png", "_heatmaps.png", "_labels.json", "_labels.png", "_segmentation.png")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        f"{stem}{ending}" for stem in "ab" for ending in endings
    ]
    assert list(compared[0]) == ["CLIP", "MaskCLIP", "SCLIP", "ClearCLIP", "NACLIP", "MaskCLIP + ClearCLIP"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    left_out = ["GEM", "ClearCLIP + RCS", "NACLIP + RCS", "SC-CLIP"]
    assert [line.partition(" is left out")[0] for line in warnings] == [f"warning: {name}" for name in left_out]
    assert "6 blocks, but this model has 2" in warnings[0]
    for name, result in compared[1].items():
        alone = ClearCLIP.from_pretrained(quick_name, method=name).segment("photos/b.jpg", ["sky", "tree", "sea"])
        assert (alone.labels == result.labels).all(), name
    assert run(*common, "--out", "alone") == 0
    assert Path("out/b_labels.png").read_bytes() == Path("alone/b_labels.png").read_bytes()
    assert run("photos/*.jpg", *common[1:], "--compare", "SCLIP", "CLIP", "--out", "two") == 0
    assert list(compared[2]) == ["SCLIP", "CLIP"] and not Path("two/a_labels.png").exists()


def test_a_method_of_the_users_own(quick_name: str, capsys: pytest.CaptureFixture) -> None:
    Path("mine.py").write_text(OWN_METHOD)
    arguments = ("photos/a.png", "--classes", "a,b", "--model", quick_name, "--model-type", "MyMethod", "--out", "out")
    try:
        assert run(*arguments, "--import", "mine.py") == 0
        expected = ClearCLIP.from_pretrained(quick_name, method="MyMethod").segment("photos/a.png", ["a", "b"])
        assert "MyMethod" in [method.label for method in models.all_methods()]
        assert run(*arguments, "--import", "mine.py") == 2, "the name is taken"
    finally:
        METHODS.pop("MyMethod", None)
    assert note("out/a_labels.json")["method"] == "MyMethod"
    assert (np.asarray(Image.open("out/a_labels.png")) == expected.labels).all()
    Path("broken.py").write_text("\n\nimport no_such_module")
    assert run("--import", "broken.py") == 2
    assert "broken.py: ModuleNotFoundError in line 3" in capsys.readouterr().err


def test_all_methods_are_each_once() -> None:
    labels = [method.label for method in models.all_methods()]
    assert labels[:3] == ["CLIP", "ClearCLIP", "MaskCLIP"] and len(set(labels)) == len(labels)
    assert {"MaskCLIP + ClearCLIP", "SCLIP", "SCLIP + ClearCLIP", "GEM", "GEM + ClearCLIP"} <= set(labels)
    assert {"NACLIP", "ClearCLIP + RCS", "NACLIP + RCS", "SC-CLIP"} <= set(labels)


def test_threshold_background_and_synonyms(quick_name: str) -> None:
    common = ("photos/a.png", "--model", quick_name, "--out", "out")
    assert run(*common, "--classes", "sky,tree", "--prob-thd", "1") == 0
    found = note("out/a_labels.json")
    assert [entry["name"] for entry in found["classes"]] == ["background", "sky", "tree"]
    assert found["classes"][0]["share"] > 0.99 and found["prob_thd"] == 1, "hardly a pixel has a probability of 1"
    Path("names.txt").write_text("sky, clouds\n\ufefftree\n", encoding="utf-8")
    assert run(*common, "--name-path", "names.txt", "--background") == 0
    assert [entry["words"] for entry in note("out/a_labels.json")["classes"]][:2] == [["background"], ["sky", "clouds"]]


def test_words() -> None:
    assert read_words(" sky,,old  tree, sky").names == ["sky", "old tree"]
    assert read_words("tree, Background", background=True).names == ["Background", "tree"]
    assert with_background(ClassWords.parse(["sky"]), True).names == ["background", "sky"]
    with pytest.raises(UserError, match="'sky' alone"):
        read_words("sky, sky")


def test_images_are_held_one_at_a_time_and_a_bad_one_is_passed_over(
    quick_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for k in range(4):
        Image.new("RGB", (20, 20)).save(f"photos/c{k}.png")
    Path("photos/aa.png").write_text("no image")
    held, alive, read = [], [], command.read_image

    def watched(path: Path) -> np.ndarray:
        image = read(path)
        held.append(weakref.ref(image))
        alive.append(sum(one() is not None for one in held))
        return image

    monkeypatch.setattr(command, "read_image", watched)
    assert run("photos", "--classes", "sky,tree", "--model", quick_name, "--out", "out") == 2
    assert len(list(Path("out").glob("*_labels.png"))) == len(held) == 6
    assert max(alive) <= 2, "the image before goes when the next one has been segmented"
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "photos/aa.png cannot be read" in line


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
    taken: set[Path] = set()
    stems = [free_stem(Path(), Path(name), taken).name for name in ("x/a.png", "y/a.png", "a_2.png", "b.png")]
    assert stems == ["a", "a_2", "a_2_2", "b"]


def test_find_images() -> None:
    photos = [Path("photos/a.png"), Path("photos/b.jpg")]
    assert find_images(["photos"]) == find_images(["photos/*.*g", "photos/a.png"]) == photos
    Image.new("RGB", (2, 2)).save("photos/[x].PNG")
    assert find_images(["photos/[x].PNG"]) == [Path("photos/[x].PNG")], "a file that looks like a pattern"


BAD = {
    "missing image": (["nope.jpg", "--classes", "a,b"], "no image at nope.jpg"),
    "over-long name": (["x" * 5000, "--classes", "a,b"], "xxx"),
    "empty folder": (["empty", "--classes", "a,b"], "no image at empty"),
    "no image": (["photos/notes.txt", "--classes", "a,b"], "notes.txt"),
    "no image given": (["--clip-type", "CLIP", "--classes", "a,b"], "no image given"),
    "no words": (["photos/a.png"], "no words given"),
    "words twice": (["photos/a.png", "--classes", "a,b", "--name-path", "n.txt"], "--name-path"),
    "threshold": (["photos/a.png", "--classes", "a,b", "--prob-thd", "2"], "prob_thd"),
    "method": (["--model-type", "Magic"], "unknown method 'Magic'; choose from"),
    "compared method": (["photos/a.png", "--classes", "a,b", "--compare", "CLIP", "Magic"], "'Magic'"),
    "import": (["--import", "nope.py"], "nope.py"),
    "option": (["--colour", "red"], "--colour"),
    "output": (["--out", "photos/notes.txt"], "notes.txt is a file"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], told: str, elsewhere: Path, capsys: pytest.CaptureFixture
) -> None:
    Path("empty").mkdir()
    before = sorted(elsewhere.rglob("*"))
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith("error: ") and told in line and captured.out == ""
    assert sorted(elsewhere.rglob("*")) == before


def test_bundled_miniature_from_the_shell(elsewhere: Path) -> None:
    """No arguments, no network: the scenes, in the miniature's own colours."""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "demo.py"], capture_output=True, text=True, env=offline, check=False)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    for scene, line in zip(SCENES, done.stdout.splitlines(), strict=False):
        assert line.startswith(f"outputs/demo/{scene.stem}_segmentation.png  (")
        classes = note(f"outputs/demo/{scene.stem}_labels.json")["classes"]
        colours = {entry["name"]: entry["colour"] for entry in classes}
        assert colours == {name: "#{:02x}{:02x}{:02x}".format(*PALETTE[k]) for k, name in enumerate(CLASSES)}
