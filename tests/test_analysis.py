"""The analysis: numbers of known tensors, statistics against plain loops, and the command line."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.analysis.statistics import PARTS, collect, frobenius_norm, normalized_entropy
from clearclip.analysis.variants import ABLATION, FEATURES, SWEEP, VARIANTS
from clearclip.commands import analyze as command

ROOT = Path(__file__).resolve().parent.parent
SCENES = ROOT / "clearclip/miniature/benchmark/images/val"


@pytest.fixture(scope="module")
def tiny(tiny_name):
    return ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=None)


def test_norm_and_entropy_of_known_tensors():
    x = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert frobenius_norm(x).tolist() == [5.0, 2.0]
    one_hot = torch.zeros(1, 197, 768, dtype=torch.float64)
    one_hot[0, 5, 7] = 200.0
    assert normalized_entropy(torch.full((1, 197, 768), 1e4, dtype=torch.float64)).item() == pytest.approx(1, abs=1e-12)
    assert 0 <= normalized_entropy(one_hot).item() < 1e-12
    # softmax of (ln 1, ln 2, ln 5, ln 8) is (1, 2, 5, 8) / 16.
    x = torch.tensor([[[0.0, math.log(2)], [math.log(5), math.log(8)]]], dtype=torch.float64)
    expected = -sum(n / 16 * math.log(n / 16) for n in (1, 2, 5, 8)) / math.log(4)
    assert normalized_entropy(x).item() == pytest.approx(expected, abs=1e-14)


def test_statistics_are_those_of_the_blocks_inputs_and_attentions(tiny):
    """Each block's parts, computed one after the other with torch's own attention; batches make no difference."""
    encoder, images = tiny.image_encoder, torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    found = collect(encoder, [images[:1], images[1:4], images[4:]])
    by_block = found["norms"].merge(found["entropy"]).set_index(["part", "block"])
    assert (by_block["images"] == 5).all()
    with torch.no_grad():
        x = encoder.tokens(images, "scale_factor")
        for number, block in enumerate(encoder.blocks, start=1):
            normed = block.ln_1(x)
            x_attn = block.attn(normed, normed, normed, need_weights=True)[0]
            parts = {"X_res": x, "X_attn": x_attn, "X_sum": x + x_attn}
            parts = {part: tensor.double().numpy() for part, tensor in parts.items()}
            for part, array in parts.items():
                row = by_block.loc[part, number]
                norm = [math.sqrt((image**2).sum()) for image in array]
                np.testing.assert_allclose(row["norm"], np.mean(norm), rtol=1e-4)
                np.testing.assert_allclose(row["norm_std"], np.std(norm), rtol=1e-2, atol=1e-5)
                weights = np.exp(array - array.max(axis=(1, 2), keepdims=True))
                weights /= weights.sum(axis=(1, 2), keepdims=True)
                entropy = -(weights * np.log(weights)).sum(axis=(1, 2)) / np.log(array[0].size)
                np.testing.assert_allclose(row["entropy"], entropy.mean(), rtol=1e-4)
                np.testing.assert_allclose(row["entropy_std"], entropy.std(), rtol=1e-2, atol=1e-6)
            x = x + x_attn
            x = x + block.mlp(block.ln_2(x))
    for part, table in found["channels"].groupby("part"):
        mean = parts[part].mean(axis=(0, 1))
        np.testing.assert_allclose(mean[table["channel"]], table["mean"], rtol=1e-3, atol=1e-4)
        magnitudes = sorted(map(abs, mean), reverse=True)
        np.testing.assert_allclose(table["share_held"], np.cumsum(magnitudes) / sum(magnitudes), rtol=1e-3)
        assert table["rank"].tolist() == list(range(1, len(mean) + 1))


def test_the_variants_are_the_papers():
    assert [(one.attention, one.residual, one.ffn, one.alpha) for one in FEATURES.values()] == [
        ("qk", True, False, 0),
        ("qk", False, False, 1),
        ("qk", True, False, 1),
    ]
    assert SWEEP["qq", 4.0] == LastBlock("qq", residual=True, ffn=False, alpha=4)
    assert SWEEP["qk", 0.0] == SWEEP["qq", 0.0] == FEATURES["X_res"]
    assert SWEEP["qq", math.inf] == ABLATION["qq", "neither"] == LastBlock()  # ClearCLIP
    assert ABLATION["kk", "FFN only"] == LastBlock("kk", residual=False, ffn=True)
    assert len({one.label for one in VARIANTS}) == len(VARIANTS) == 24 + 1 + 2 * 6


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
        (["--methods", "SCLAP"], "'SCLAP'; choose from"),
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
