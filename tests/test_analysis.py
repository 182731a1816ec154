"""The analysis: numbers of known tensors, statistics against plain loops, and the command line."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clearclip.analysis import (
    PARTS,
    X_ATTN,
    X_RES,
    X_SUM,
    all_variants,
    channel_share,
    collect,
    frobenius_norm,
    normalized_entropy,
    score_variants,
)
from clearclip.analysis import command as command_module
from clearclip.analysis.inputs import centre_square
from clearclip.analysis.models import parse_model
from clearclip.analysis.statistics import Moments, channel_mean
from clearclip.analysis.variants import ALPHAS, Together, ablation, alpha_sweep
from clearclip.analysis.words import describe_scores, describe_statistics
from clearclip.errors import UserError
from clearclip.evaluation.metric import confusion_counts
from clearclip.last_block import ATTENTIONS, LastBlock
from clearclip.model import ClearCLIP

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tiny(tiny_name):
    return ClearCLIP.from_pretrained(tiny_name, device="cpu", slide_crop=32, slide_stride=16, short_side=None)


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))


# --- formulas -------------------------------------------------------------------------------------------------------


def test_norm_of_a_known_tensor():
    x = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert frobenius_norm(x).tolist() == [5.0, 2.0]


def test_entropy_of_a_constant_is_one_and_of_a_one_hot_is_zero():
    constant = torch.full((1, 197, 768), -3.25)
    one_hot = torch.zeros(1, 197, 768)
    one_hot[0, 5, 7] = 200.0
    assert normalized_entropy(constant).item() == pytest.approx(1, abs=1e-12)
    assert 0 <= normalized_entropy(one_hot).item() < 1e-12


def test_entropy_by_hand():
    # softmax of (ln 1, ln 2, ln 5, ln 8) is (1, 2, 5, 8) / 16.
    x = torch.tensor([[[0.0, math.log(2)], [math.log(5), math.log(8)]]], dtype=torch.float64)
    expected = -sum(n / 16 * math.log(n / 16) for n in (1, 2, 5, 8)) / math.log(4)
    assert normalized_entropy(x).item() == pytest.approx(expected, abs=1e-14)


def test_entropy_needs_no_scaling_against_overflow():
    assert normalized_entropy(torch.full((1, 4, 4), 1e4)).item() == pytest.approx(1)


def test_channel_mean_and_share():
    x = torch.tensor([[[1.0, 10.0, 0.0, -4.0], [3.0, 20.0, 0.0, 0.0]]])
    mean = channel_mean(x)[0].numpy()
    assert mean.tolist() == [2, 15, 0, -2]
    assert channel_share(mean, 1) == pytest.approx(15 / 19)
    assert channel_share(mean, 3) == pytest.approx(1)


def test_moments_are_those_of_all_values_at_once():
    values = np.random.default_rng(0).normal(1e6, 1, (17, 4))  # a large mean: naive sums of squares lose it
    moments = Moments((2, 4))
    first = 0
    for size in (1, 3, 0 + 6, 7):
        moments.add((1,), values[first : first + size], first)
        first += size
    np.testing.assert_allclose(moments.mean[1], values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.std[1], values.std(axis=0), rtol=1e-6)
    assert not moments.mean[0].any()


# --- statistics of a model ------------------------------------------------------------------------------------------


def test_streaming_equals_one_batch(tiny, images):
    together = collect(tiny.image_encoder, [images])
    streamed = collect(tiny.image_encoder, [images[:1], images[1:4], images[4:]])
    assert streamed.images == together.images == 5
    for name in ("norm", "norm_std", "entropy", "entropy_std", "channels"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(together, name), rtol=1e-4, atol=1e-6, err_msg=name)


def test_statistics_are_those_of_the_blocks_inputs_and_attentions(tiny, images):
    """Each block's parts, computed one after the other with torch's own attention."""
    encoder = tiny.image_encoder
    found = collect(encoder, [images])
    with torch.no_grad():
        x = encoder.tokens(images)
        for index, block in enumerate(encoder.blocks):
            normed = block.ln_1(x)
            x_attn = block.attn(normed, normed, normed, need_weights=True)[0]
            for part, tensor in enumerate((x, x_attn, x + x_attn)):
                array = tensor.double().numpy()
                norm = [math.sqrt((image**2).sum()) for image in array]
                np.testing.assert_allclose(found.norm[part, index], np.mean(norm), rtol=1e-4)
                np.testing.assert_allclose(found.norm_std[part, index], np.std(norm), rtol=1e-2, atol=1e-5)
                weights = np.exp(array - array.max(axis=(1, 2), keepdims=True))
                weights /= weights.sum(axis=(1, 2), keepdims=True)
                entropy = -(weights * np.log(weights)).sum(axis=(1, 2)) / np.log(array[0].size)
                np.testing.assert_allclose(found.entropy[part, index], entropy.mean(), rtol=1e-4)
                np.testing.assert_allclose(found.channels[part, index], array.mean(axis=(0, 1)), rtol=1e-3, atol=1e-4)
            x = x + x_attn
            x = x + block.mlp(block.ln_2(x))


def test_statistics_leave_no_trace(tiny, images):
    method = tiny.image_encoder.method
    with torch.no_grad():
        before = tiny.image_encoder(images)
        collect(tiny.image_encoder, [images])
        torch.testing.assert_close(tiny.image_encoder(images), before)
    assert tiny.image_encoder.method is method
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny.modules())


def test_no_image_is_an_error(tiny):
    with pytest.raises(ValueError, match="no image"):
        collect(tiny.image_encoder, [])


# --- variants and scores --------------------------------------------------------------------------------------------


def test_the_variants_are_the_papers():
    assert (X_RES.residual, X_RES.alpha, X_RES.ffn) == (True, 0, False)
    assert (X_ATTN.attention, X_ATTN.residual, X_ATTN.ffn) == ("qk", False, False)
    assert (X_SUM.attention, X_SUM.residual, X_SUM.ffn) == ("qk", True, False)
    assert LastBlock() in ablation("qq")  # ClearCLIP
    variants = all_variants()
    assert len(set(variants)) == len(variants)
    assert {X_RES, X_ATTN, X_SUM} <= set(variants)
    assert alpha_sweep("qk")[-1] == X_ATTN
    assert alpha_sweep("qk")[0] == X_RES == alpha_sweep("qq")[0]
    assert [variant.alpha for variant in alpha_sweep("qq")[:-1]] == list(ALPHAS)


def test_variants_together_are_those_one_by_one(tiny, images):
    encoder, own = tiny.image_encoder, tiny.image_encoder.method
    variants = all_variants()
    try:
        with torch.no_grad():
            encoder.method = Together(variants)
            together = encoder(images[:2]).unflatten(0, (len(variants), 2))
            for variant, features in zip(variants, together, strict=True):
                encoder.method = variant
                torch.testing.assert_close(features, encoder(images[:2]), rtol=1e-4, atol=1e-4)
    finally:
        encoder.method = own


def test_scores_are_those_of_the_public_object(tiny):
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 255, (50, 71, 3), dtype=np.uint8) for _ in range(2)]
    truths = [rng.integers(0, 3, (50, 71)) for _ in photos]
    truths[0][:20] = 255
    words = ["cat", "dog, puppy", "sky"]
    variants = (X_RES, X_SUM, LastBlock())
    own = tiny.image_encoder.method
    samples = [(torch.from_numpy(photo).permute(2, 0, 1), truth) for photo, truth in zip(photos, truths, strict=True)]
    scores = score_variants(tiny, samples, tiny.encode_text(words), variants)
    assert tiny.image_encoder.method is own
    for variant in variants:
        tiny.image_encoder.method = variant
        expected = np.zeros((3, 3), dtype=np.int64)
        for photo, truth in zip(photos, truths, strict=True):
            labels = tiny.segment(photo, words).labels
            for guess in range(3):
                for true in range(3):
                    expected[true, guess] += ((truth == true) & (labels == guess)).sum()
        assert scores[variant].confusion.sum() == 2 * 50 * 71 - 20 * 71
        # A pixel on the edge between two classes may fall to the other side.
        assert np.abs(scores[variant].confusion - expected).sum() <= 8
    tiny.image_encoder.method = own
    assert (confusion_counts(truths[0], truths[0], 3) == np.diag([(truths[0] == k).sum() for k in range(3)])).all()


# --- words ----------------------------------------------------------------------------------------------------------


def fake_statistics(norm, entropy, channels):
    from clearclip.analysis import BlockStatistics

    norm, entropy = np.array(norm, dtype=float), np.array(entropy, dtype=float)
    return BlockStatistics("toy", 7, 64, norm, 0 * norm, entropy, 0 * entropy, np.array(channels, dtype=float))


def test_words_follow_the_numbers():
    even = np.ones((3, 2, 20))
    loud = even.copy()
    loud[0, 1, 4] = -181  # X_res's channel 4 in block 2: the largest ten hold (181 + 9) / 200
    noisy = fake_statistics([[5, 30], [10, 10], [12, 33]], [[0.9, 0.1], [0.95, 0.94], [0.9, 0.2]], loud)
    norms, entropy, channels = describe_statistics(noisy, 2)
    assert "the residual is 3.00 times as large" in norms
    assert "larger one in 1 of 2 blocks" in norms
    assert "X_res falls to 0.100" in entropy
    assert "X_attn stays near 0.940" in entropy
    assert "X_res ends 0.840 below X_attn" in entropy
    assert "hold 95 % of X_res, 50 % of X_attn, 50 % of X_sum (even channels would hold 50 %)" in channels
    assert "channel 4, is 181 times" in channels
    calm = fake_statistics([[5, 5], [10, 20], [12, 22]], [[0.5, 0.9], [0.5, 0.9], [0.5, 0.9]], even)
    norms, entropy, _ = describe_statistics(calm, 1)
    assert "attention is 4.00 times as large" in norms
    assert "X_res rises to 0.900" in entropy
    assert "equally spread" in entropy


def score_tables(x_res, x_attn, x_sum, alpha):
    features = pd.DataFrame({"features": PARTS, "mIoU": [x_res, x_attn, x_sum]})
    alphas = pd.DataFrame({"attention": "qq", "alpha": [*ALPHAS, math.inf], "mIoU": alpha})
    rows = [
        (name, variant.residual, variant.ffn, kept, 10 - 4 * variant.residual - variant.ffn + (name == "qq"))
        for name in ATTENTIONS
        for variant, kept in zip(
            ablation(name), ("residual + FFN", "residual only", "FFN only", "neither"), strict=True
        )
    ]
    return features, alphas, pd.DataFrame(rows, columns=["attention", "residual", "ffn", "kept", "mIoU"])


def test_words_on_scores_follow_the_numbers():
    features, alpha, table = describe_scores(*score_tables(5, 30, 20, [1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert "the residual costs 10.0 points" in features
    assert "moves mIoU from 1.0 to 9.0, higher with every step" in alpha
    assert "qq attention and neither residual nor FFN (11.0)" in table
    assert "Dropping the residual changes mIoU by +4.0 points, dropping the FFN by +1.0" in table
    features, alpha, _ = describe_scores(*score_tables(5, 20, 30, [1, 2, 9, 4, 5, 6, 7, 8, 3]))
    assert "the residual brings 10.0 points" in features
    assert "the best is 9.0 at α = 0.5" in alpha


# --- names and inputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, label, options",
    [
        ("miniature", "miniature", {"model_name": "miniature"}),
        ("CLIP:ViT-L/14", "CLIP ViT-L/14", {"clip_type": "CLIP", "vit_type": "ViT-L/14", "pretrained": "default"}),
        ("metaclip", "MetaCLIP ViT-B/16", {"clip_type": "MetaCLIP", "vit_type": "ViT-B/16", "pretrained": "default"}),
        ("DINO", "DINO ViT-B/16", {"clip_type": "DINO", "vit_type": "ViT-B/16", "pretrained": "default"}),
        (
            "BLIP:ViT-B/16:weights/model.pth",
            "BLIP ViT-B/16 (model.pth)",
            {"clip_type": "BLIP", "vit_type": "ViT-B/16", "pretrained": "weights/model.pth"},
        ),
        ("DINO:random", "DINO ViT-B/16 (random)", {"clip_type": "DINO", "vit_type": "ViT-B/16", "pretrained": None}),
        ("ViT-B-32:openai", "ViT-B-32 (openai)", {"model_name": "ViT-B-32", "pretrained": "openai"}),
        ("local-dir:some/folder/", "folder", {"model_name": "local-dir:some/folder/"}),
    ],
)
def test_model_names(name, label, options):
    parsed = parse_model(name)
    assert (parsed.label, parsed.options) == (label, options)


def test_centre_square_keeps_the_middle():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 50:] = 255
    square = centre_square(image, 20)
    assert square.shape == (20, 20, 3)
    assert square[:, :8].max() == 0 and square[:, 12:].min() == 255


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_name):
    """The whole analysis of a tiny random model on a few scenes of the miniature."""
    out = tmp_path_factory.mktemp("analysis")
    code = command_module.main(ROOT, ["--model", tiny_name, "--limit", "4", "--maps", "2", "--out", str(out)])
    assert code == 0
    return out


def test_figures_come_with_their_numbers(run, tiny, capsys):
    for name in ("norms", "entropy", "channels", "features", "alpha", "ablation"):
        assert Image.open(run / f"{name}.png").width > 600
        assert (run / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
    norms = pd.read_csv(run / "norms.csv")
    assert len(norms) == len(tiny.image_encoder.blocks) * 3
    assert (norms["norm"] > 0).all()
    channels = pd.read_csv(run / "channels.csv")
    assert channels.groupby("part")["share_held"].max().round(6).tolist() == [1, 1, 1]
    assert len(pd.read_csv(run / "alpha.csv")) == 2 * (len(ALPHAS) + 1)
    ablations = pd.read_csv(run / "ablation.csv")
    assert len(ablations) == 4 * len(ATTENTIONS)
    assert ablations["mIoU"].between(0, 100).all()
    assert list(run.glob("overview_*.png")) and list(run.glob("maps_*.png"))
    assert not list(run.glob(".*"))
    assert "In the last block X_res has a norm" in (run / "summary.txt").read_text()


def test_the_tables_agree_with_each_other(run):
    features = pd.read_csv(run / "features.csv").set_index("features")["mIoU"]
    alpha = pd.read_csv(run / "alpha.csv")
    ablations = pd.read_csv(run / "ablation.csv")
    q_k = alpha[alpha["attention"] == "qk"].set_index("alpha")["mIoU"]
    assert features["X_res"] == q_k[0.0]
    assert features["X_sum"] == q_k[1.0]
    assert features["X_attn"] == q_k[math.inf]
    only_residual = ablations[(ablations["attention"] == "qk") & (ablations["kept"] == "residual only")]
    assert only_residual["mIoU"].item() == features["X_sum"]


def test_a_folder_of_images_with_damaged_ones(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(2)
    for name in ("a.png", "c.png"):
        Image.fromarray(rng.integers(0, 255, (70, 90, 3), dtype=np.uint8)).save(photos / name)
    (photos / "b.jpg").write_bytes(b"no image at all")
    out = tmp_path / "out"
    arguments = [str(photos), "--classes", "cat, dog", "--maps", "1", "--model", "miniature", "--out", str(out)]
    assert command_module.main(ROOT, arguments) == 0
    captured = capsys.readouterr()
    assert captured.err.count("skipped: image") == 1 and "b.jpg" in captured.err
    assert "1 of 3 images were skipped" in captured.out
    assert not (out / "features.csv").exists()
    assert pd.read_csv(out / "norms.csv")["images"].unique().tolist() == [2]
    for name in ("a.png", "c.png"):
        (photos / name).write_bytes(b"")
    with pytest.raises(UserError, match="none of the 3 images can be used"):
        command_module.main(ROOT, arguments)


def test_models_side_by_side_one_out_of_reach(tmp_path, tiny_name, capsys):
    arguments = ["--model", tiny_name, "--model", f"local-dir:{tmp_path / 'nowhere'}", "--limit", "2"]
    code = command_module.main(
        ROOT, [*arguments, "--only", "statistics", "--block", "3", "--out", str(tmp_path / "out")]
    )
    assert code == 1
    assert "nowhere has no open_clip_config.json" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "out" / "channels.csv")["block"].unique().tolist() == [3]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--block", "7"], "has no block 7; it has blocks 1 to 6"),
        (["--block", "0"], "--block must be at least 1"),
        (["--size", "50"], "--size 50 is no multiple of the patch"),
        (["--config", "nowhere.py"], "config nowhere.py does not exist"),
        (["--model", "ViT-B-16"], "has no weights; write it as one of these"),
        (["--only", "everything"], "invalid choice"),
        (["--classes", "cat, dog"], "--classes is for images"),
        (["no/such/folder"], "does not exist"),
        ([str(ROOT / "clearclip/miniature/benchmark/images/val"), "--only", "scores"], "mIoU needs masks"),
        ([str(ROOT / "clearclip/miniature/benchmark/images/val"), "--only", "maps"], "maps need words"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tiny_name, tmp_path):
    model = [] if "--model" in arguments else ["--model", tiny_name]
    with pytest.raises(UserError, match=message):
        command_module.main(ROOT, [*arguments, *model, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_one_line(tmp_path, tiny_name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        command_module.main(ROOT, [str(tmp_path / "empty"), "--model", tiny_name])
