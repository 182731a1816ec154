"""analyze.py: its tables, figures and errors."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clearclip import ClearCLIP, UserError
from clearclip.analysis.statistics import PARTS
from clearclip.analysis.variants import ABLATION
from clearclip.commands import analyze as command

ROOT = Path(__file__).resolve().parents[2]
SCENES = ROOT / "clearclip/miniature/benchmark/images/val"


@pytest.fixture(scope="module")
def tiny(tiny_name):
    return ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_name):
    """The whole analysis of a tiny random model on a few scenes of the miniature."""
    out = tmp_path_factory.mktemp("analysis")
    arguments = ["--model", tiny_name, "--limit", "3", "--methods", "SCLIP", "GEM", "--out", str(out)]
    command.analyze_command(arguments)
    return out


def test_figures_come_with_their_numbers(run, tiny):
    tables = {}
    for name in ("norms", "entropy", "channels", "features", "alpha", "ablation", "methods"):
        tables[name] = pd.read_csv(run / f"{name}.csv")
    assert len(tables["norms"]) == len(tiny.image_encoder.blocks) * len(PARTS)
    assert tables["channels"].groupby("part")["share_held"].max().round(6).tolist() == [1, 1, 1]
    assert min(Image.open(run / f"{name}.png").width for name in ("analysis", "maps")) > 1500
    features = tables["features"].set_index("features")["mIoU"]
    sweep = tables["alpha"].set_index(["attention", "alpha"])["mIoU"]
    ablation = tables["ablation"].set_index(["attention", "kept"])["mIoU"]
    methods = tables["methods"].set_index("method")["mIoU"]
    assert features["X_res"] == sweep["qk", 0.0] and features["X_attn"] == ablation["qk", "neither"]
    assert sweep["qk", 1.0] == ablation["qk", "residual only"]
    assert methods.index.tolist() == ["CLIP", "SCLIP", "GEM", "ClearCLIP"]
    assert methods["SCLIP"] == ablation["qq+kk", "residual + FFN"]
    assert f"{methods['GEM']:.1f}" in (run / "summary.txt").read_text()


def test_scores_are_those_of_the_public_object(run, tiny):
    """Intersection over union of the labels that segment() gives, counted class by class."""
    names = (ROOT / "config/cls_miniature.txt").read_text().splitlines()
    photos = sorted(SCENES.glob("*.png"))[:3]
    truths = np.stack([np.array(Image.open(SCENES.parents[1] / "annotations/val" / photo.name)) for photo in photos])
    ablation = pd.read_csv(run / "ablation.csv").set_index(["attention", "kept"])["mIoU"]
    for key in (("vv", "residual only"), ("qq", "neither")):
        found = tiny.compare(photos, names, [ABLATION[key]])
        labels = np.stack([next(iter(one.values())).labels for one in found])
        pairs = [(truths == label, labels == label) for label in range(len(names))]
        iou = [(a & b)[truths != 255].sum() / (a | b)[truths != 255].sum() for a, b in pairs if a.any() or b.any()]
        # A pixel on the edge between two classes may fall to the other side.
        assert ablation[key] == pytest.approx(100 * np.mean(iou), abs=0.05)


def test_a_folder_of_images(tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in ("a.png", "c.png"):
        Image.effect_noise((90, 70), 64).save(photos / name)
    arguments = [str(photos), "--model", "miniature", "--classes", "cat, dog", "--out", str(out)]
    with pytest.warns(UserWarning, match="the miniature knows drawn scenes only"):
        command.analyze_command([*arguments, "--methods", "SCLIP"])
    assert not (out / "features.csv").exists() and (out / "maps.png").exists()
    norms = pd.read_csv(out / "norms.csv")
    assert norms["images"].unique().tolist() == [2] and norms["model"].unique().tolist() == ["miniature"]
    (photos / "b.jpg").write_bytes(b"no image at all")
    with pytest.raises(UserError, match=r"b\.jpg cannot be read"), pytest.warns(UserWarning):
        command.analyze_command(arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--limit", "0"], "--limit must be at least 1"),
        (["--config", "nowhere.py"], "config nowhere.py does not exist"),
        (["--methods", "SCLAP"], "'SCLAP'; did you mean SCLIP"),
        (["--only", "everything"], "invalid choice"),
        (["--classes", "cat, dog"], "--classes is for images"),
        (["no/such/folder"], "no image at no/such/folder"),
        ([str(SCENES), "--only", "scores"], "mIoU needs masks"),
        ([str(SCENES), "--only", "maps"], "maps need words"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        command.analyze_command([*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
