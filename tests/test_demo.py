"""demo.py: what it writes for all kinds of arguments, and what it says to bad ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clearclip import ClearCLIP
from clearclip.demo.command import main
from clearclip.demo.inputs import find_images, read_words
from clearclip.demo.outputs import Outputs
from clearclip.demo.rows import ROWS, method_of
from clearclip.errors import UserError, run_command
from clearclip.gem import GEM
from clearclip.last_block import LastBlock
from clearclip.text import ClassWords

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tiny_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model of patches so large that windows of 448 pixels cost next to nothing."""
    folder = tmp_path_factory.mktemp("large_patches")
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": 6, "width": 32, "head_width": 16, "patch_size": 32},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    torch.save(open_clip.model.CLIP(**config).state_dict(), folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


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
    return run_command(lambda: main([str(argument) for argument in arguments]))


def test_files_agree_with_each_other_and_with_segment(tiny_name: str, capsys: pytest.CaptureFixture) -> None:
    words = "sky, old  tree ,grass"
    assert run("photos/a.png", "--classes", words, "--model", tiny_name, "--out", "new/out") == 0
    out = Path("new/out")
    assert sorted(path.name for path in out.iterdir()) == ["a_labels.json", "a_labels.png", "a_segmentation.png"]
    labels = np.asarray(Image.open(out / "a_labels.png"))
    model = ClearCLIP.from_pretrained(tiny_name)
    expected = model.segment("photos/a.png", ["sky", "old tree", "grass"])
    assert labels.dtype == np.uint8 and (labels == expected.labels).all()
    note = json.loads((out / "a_labels.json").read_text(encoding="utf-8"))
    assert (note["width"], note["height"], note["labels"]) == (90, 60, "a_labels.png")
    assert note["method"] == "ClearCLIP" and note["prob_thd"] == 0
    assert [entry["id"] for entry in note["classes"]] == [0, 1, 2]
    assert [entry["name"] for entry in note["classes"]] == ["sky", "old tree", "grass"]
    for entry in note["classes"]:
        assert entry["pixels"] == (labels == entry["id"]).sum() and entry["share"] == entry["pixels"] / 5400
        assert entry["colour"] == "#{:02x}{:02x}{:02x}".format(*expected.colours[entry["id"]])
    assert (out / "a_segmentation.png").read_bytes() and Image.open(out / "a_segmentation.png").width > 1000
    printed = capsys.readouterr().out
    assert str(out / "a_segmentation.png") in printed and "_labels.json" in printed


def test_folder_glob_compare_and_heatmaps(tiny_name: str) -> None:
    common = ("--classes", "sky,tree", "--model", tiny_name, "--out", "out")
    assert run("photos", *common, "--compare", "--heatmaps") == 0
    endings = ("_compare.png", "_heatmaps.png", "_labels.json", "_labels.png", "_segmentation.png")
    expected = sorted(f"{stem}{ending}" for stem in "ab" for ending in endings)
    assert sorted(path.name for path in Path("out").iterdir()) == expected
    assert run("photos/*.jpg", *common[:-1], "jpg") == 0
    assert sorted(path.name for path in Path("jpg").iterdir()) == [
        "b_labels.json",
        "b_labels.png",
        "b_segmentation.png",
    ]


def test_comparing_leaves_the_method_as_it_was(tiny_name: str) -> None:
    common = ("photos", "--classes", "sky,tree,sea", "--model", tiny_name, "--model-type", "SCLIP")
    run(*common, "--out", "one")
    run(*common, "--compare", "--out", "two")
    for name in ("a_labels.png", "b_labels.png"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    assert json.loads(Path("two/a_labels.json").read_text())["method"] == "SCLIP"


def test_rows_are_those_of_the_table() -> None:
    assert method_of("ClearCLIP") == LastBlock("qq", residual=False, ffn=False)
    assert method_of("CLIP") == LastBlock("qk", residual=True, ffn=True)
    assert method_of("MaskCLIP") == LastBlock("identity", residual=True, ffn=True)
    assert method_of("SCLIP") == LastBlock("qq+kk", residual=True, ffn=True)
    assert method_of("SCLIP", ignore_residual=True) == LastBlock("qq+kk", residual=False, ffn=False)
    assert method_of("GEM") == GEM(residual=True) and method_of("GEM", ignore_residual=True) == GEM(residual=False)
    assert len(ROWS) == 5


def test_threshold_and_background(tiny_name: str) -> None:
    common = ("photos/a.png", "--model", tiny_name, "--out", "out")
    assert run(*common, "--classes", "sky,tree", "--prob-thd", "1") == 0
    note = json.loads(Path("out/a_labels.json").read_text())
    assert [entry["name"] for entry in note["classes"]] == ["background", "sky", "tree"]
    assert note["classes"][0]["share"] > 0.99, "hardly a pixel has a probability of 1"
    assert run(*common, "--classes", "sky", "--background") == 0
    assert [entry["name"] for entry in json.loads(Path("out/a_labels.json").read_text())["classes"]] == [
        "background",
        "sky",
    ]


def test_names_file_with_synonyms(tiny_name: str) -> None:
    Path("names.txt").write_text("sky, clouds\ntree\n\n", encoding="utf-8")
    assert run("photos/a.png", "--name-path", "names.txt", "--model", tiny_name, "--out", "out", "--heatmaps") == 0
    note = json.loads(Path("out/a_labels.json").read_text())
    assert [entry["words"] for entry in note["classes"]] == [["sky", "clouds"], ["tree"]]


def test_hundreds_of_words(tiny_name: str) -> None:
    words = ",".join(f"word {k}" for k in range(280))
    assert run("photos/a.png", "--classes", words, "--model", tiny_name, "--out", "out") == 0
    labels = np.asarray(Image.open("out/a_labels.png"))
    assert labels.dtype == np.uint16
    assert len(json.loads(Path("out/a_labels.json").read_text())["classes"]) == 280


def test_over_long_word_is_named(tiny_name: str, capsys: pytest.CaptureFixture) -> None:
    long = "incomprehensibly long winded name " * 5
    assert run("photos/a.png", "--classes", f"sky,{long}", "--model", tiny_name, "--out", "out") == 0
    [warning] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert "incomprehensibly" in warning and "too long" in warning


KINDS = {
    "grey.png": lambda: Image.new("L", (30, 20), 99),
    "rgba.png": lambda: Image.new("RGBA", (30, 20), (1, 2, 3, 99)),
    "palette.png": lambda: Image.new("RGB", (30, 20), (9, 99, 9)).quantize(4),
    "deep.png": lambda: Image.fromarray(np.full((20, 30), 40000, np.uint16)),
    "cmyk.jpg": lambda: Image.new("CMYK", (30, 20), (9, 9, 9, 9)),
    "animation.gif": lambda: Image.new("P", (30, 20), 1),
    "one.png": lambda: Image.new("RGB", (1, 1)),
    "thin.png": lambda: Image.new("RGB", (400, 2)),
    "large.jpg": lambda: Image.new("RGB", (4000, 3000), (90, 80, 70)),
}


def test_all_kinds_of_images(tiny_name: str) -> None:
    folder = Path("kinds")
    folder.mkdir()
    for name, make in KINDS.items():
        make().save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(folder / "rotated.jpg", exif=exif)
    assert run(folder, "--classes", "sky,tree", "--model", tiny_name, "--out", "out") == 0
    for name in [*KINDS, "rotated.jpg"]:
        with Image.open(folder / name) as image, Image.open(f"out/{Path(name).stem}_labels.png") as labels:
            expected = (20, 40) if name == "rotated.jpg" else image.size
            assert labels.size == expected, name
            assert Image.open(f"out/{Path(name).stem}_segmentation.png").width < 2500


def test_one_bad_image_does_not_stop_the_others(tiny_name: str, capsys: pytest.CaptureFixture) -> None:
    Path("photos/aa.png").write_text("no image")
    assert run("photos", "--classes", "sky,tree", "--model", tiny_name, "--out", "out") == 2
    assert {"a_labels.png", "b_labels.png"} <= {path.name for path in Path("out").iterdir()}
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "photos/aa.png cannot be read" in line


def test_nothing_is_replaced_that_was_read(tiny_name: str) -> None:
    """Images of one name in two folders, and an image that is called like an output."""
    Path("more").mkdir()
    Image.new("RGB", (20, 20)).save("more/a.png")
    Image.new("RGB", (20, 20)).save("photos/b_segmentation.png")
    before = Path("photos/b_segmentation.png").read_bytes()
    assert run("photos", "more", "--classes", "sky,tree", "--model", tiny_name, "--out", "photos") == 0
    assert Path("photos/b_segmentation.png").read_bytes() == before
    assert Image.open("photos/a_labels.png").size == (90, 60)
    assert Image.open("photos/a_2_labels.png").size == (20, 20)
    assert Image.open("photos/b_2_labels.png").size == (50, 80)
    assert Image.open("photos/b_segmentation_labels.png").size == (20, 20)


def test_stems_are_unlike(elsewhere: Path) -> None:
    outputs = Outputs(elsewhere, [])
    assert [outputs.stem(Path(name)) for name in ("x/a.png", "y/a.png", "a_2.png", "b.png")] == [
        "a",
        "a_2",
        "a_2_2",
        "b",
    ]


def test_find_images() -> None:
    assert find_images(["photos"]) == [Path("photos/a.png"), Path("photos/b.jpg")]
    assert find_images(["photos/b.jpg", "photos/*.???", "photos"])[:2] == [Path("photos/b.jpg"), Path("photos/a.png")]
    Path("photos/[1].png").touch()
    assert find_images(["photos/[1].png"]) == [Path("photos/[1].png")]


def test_read_words() -> None:
    assert read_words(" sky ,sky,  old   tree").classes == (("sky",), ("old tree",))
    assert read_words("tree, Background, sky", background=True).names == ["Background", "tree", "sky"]
    assert read_words("sky", background=True).names == ["background", "sky"]


BAD = {
    "no words": (["photos/a.png"], "no words given"),
    "blank words": (["photos/a.png", "--classes", "  "], "no words given"),
    "one word": (["photos/a.png", "--classes", "sky"], "'sky' alone would cover"),
    "one word, twice": (["photos/a.png", "--classes", "sky, sky"], "'sky' alone would cover"),
    "empty word": (["photos/a.png", "--classes", "sky,,tree"], "empty word in 'sky,,tree'"),
    "only commas": (["photos/a.png", "--classes", ",,,"], "empty word"),
    "words twice": (["photos/a.png", "--classes", "a,b", "--name-path", "x"], "--classes and --name-path"),
    "missing names file": (["photos/a.png", "--name-path", "names.txt"], "names file names.txt"),
    "missing image": (["nope.jpg", "--classes", "a,b"], "nope.jpg does not exist"),
    "unreadable image": (["photos/notes.txt", "--classes", "a,b"], "notes.txt cannot be read"),
    "empty folder": (["empty", "--classes", "a,b"], "folder empty has no image"),
    "pattern": (["photos/*.bmp", "--classes", "a,b"], "no file fits photos/*.bmp"),
    "endless name": (["x" * 5000, "--classes", "a,b"], "cannot be read"),
    "no image": (["--clip-type", "CLIP", "--classes", "a,b"], "no image given"),
    "threshold": (["photos/a.png", "--classes", "a,b", "--prob-thd", "1.5"], "--prob-thd 1.5"),
    "threshold of text": (["photos/a.png", "--prob-thd", "much"], "--prob-thd"),
    "threshold of nan": (["photos/a.png", "--classes", "a,b", "--prob-thd", "nan"], "--prob-thd nan"),
    "method": (["photos/a.png", "--model-type", "BestCLIP"], "BestCLIP"),
    "model": (["photos/a.png", "--classes", "a,b", "--model", "ViT-Z"], "ViT-Z"),
    "vit": (["photos/a.png", "--classes", "a,b", "--vit-type", "ViT-Z"], "ViT-Z"),
    "weights": (["photos/a.png", "--classes", "a,b", "--pretrained", "nope.pt"], "nope.pt"),
    "device": (["photos/a.png", "--classes", "a,b", "--device", "abacus"], "abacus"),
    "option": (["--colour", "red"], "--colour"),
    "port": (["--web", "--port", "99999"], "--port 99999"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], told: str, elsewhere: Path, capsys: pytest.CaptureFixture
) -> None:
    Path("empty").mkdir()
    before = sorted(elsewhere.rglob("*"))
    assert run(*arguments, "--out", "out") == 2
    captured = capsys.readouterr()
    [line] = [line for line in captured.err.splitlines() if not line.startswith("warning:")]
    assert line.startswith("error: ") and told in line
    assert captured.out == ""
    assert sorted(elsewhere.rglob("*")) == before


def test_output_that_cannot_be_written(tiny_name: str, capsys: pytest.CaptureFixture) -> None:
    Path("file").touch()
    assert run("photos/a.png", "--classes", "a,b", "--model", tiny_name, "--out", "file") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_bundled_miniature_from_the_shell(elsewhere: Path) -> None:
    """No arguments, no network, and the result is better than chance: the labels agree with the drawn ones."""
    done = subprocess.run(
        [sys.executable, ROOT / "demo.py"], capture_output=True, text=True, env=offline(), cwd=elsewhere, check=False
    )
    assert done.returncode == 0, done.stderr
    pictures = [line.split("  (")[0] for line in done.stdout.splitlines() if "_segmentation.png" in line]
    assert len(pictures) == 3
    truth = ROOT / "clearclip" / "miniature" / "benchmark" / "annotations" / "val"
    right = []
    for picture in pictures:
        stem = Path(picture).name.removesuffix("_segmentation.png")
        labels = np.asarray(Image.open(Path(picture).with_name(f"{stem}_labels.png")))
        right.append((labels == np.asarray(Image.open(truth / f"{stem}.png"))).mean())
    assert np.mean(right) > 0.2, right


def offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_a_batch_equals_one_by_one(tiny_name: str) -> None:
    model = ClearCLIP.from_pretrained(tiny_name)
    images = ["photos/a.png", Image.open("photos/b.jpg"), np.zeros((30, 40), np.uint8)]
    together = model.segment(images, ["sky", "tree, bush"])
    assert [result.labels.shape for result in together] == [(60, 90), (80, 50), (30, 40)]
    for image, result in zip(images, together, strict=True):
        alone = model.segment(image, ClassWords.parse(["sky", "tree, bush"]))
        assert (alone.labels == result.labels).mean() > 0.999
        torch.testing.assert_close(torch.from_numpy(alone.probabilities), torch.from_numpy(result.probabilities))
    assert model.segment([], ["a", "b"]) == []
    with pytest.raises(UserError, match="prob_thd"):
        model.segment(images[0], ["a", "b"], prob_thd=2)
