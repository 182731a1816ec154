"""Which weights, which activation, and that weights are data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import open_clip
import pytest
import torch

from clearclip import UserError
from clearclip.evaluation.loaded_model import tensor_digests
from clearclip.evaluation.weight_facts import weights_facts
from clearclip.model_settings import ModelSettings
from clearclip.weights import choose_weights

CPU = torch.device("cpu")
LAION = "laion2b_s34b_b88k"


@pytest.mark.parametrize(
    ("model_name", "tag", "quick"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-B-16", "metaclip_fullcc", True),
        ("ViT-L-14", "metaclip_fullcc", True),
        ("ViT-L-14", "openai", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-L-14", "laion2b_s32b_b82k", False),
        ("ViT-B-16-quickgelu", "metaclip_fullcc", True),
        ("ViT-B/16", "openai", True),
    ],
)
def test_activation_of_tags(model_name, tag, quick):
    weights = choose_weights(model_name=model_name, pretrained=tag)
    assert weights.quick_gelu is quick
    assert bool(open_clip.get_pretrained_cfg(weights.model_name, tag).get("quick_gelu", False)) is quick


@pytest.mark.parametrize(
    ("options", "quick"),
    [
        (dict(clip_type="CLIP", vit_type="ViT-B/16"), True),
        (dict(clip_type="MetaCLIP", vit_type="ViT-L/14"), True),
        (dict(clip_type="OpenCLIP"), False),
        (dict(clip_type="CLIP", model_name="ViT-B-16"), True),
        (dict(model_name="ViT-B-16", quick_gelu=True), True),
        (dict(quick_gelu=False), False),
        (dict(vit_type="ViT-L/16", model_name="ViT-B-16-quickgelu"), True),
        (dict(model_name="ViT-L-14-336"), True),  # as all its published weights
        (dict(model_name="ViT-H-14-378"), True),
        (dict(model_name="ViT-H-14-worldwide"), True),
        (dict(model_name="ViT-bigG-14-CLIPA"), False),
    ],
)
def test_activation_of_a_file(options, quick, tmp_path):
    assert choose_weights(**options, pretrained=str(tmp_path / "weights.pt")).quick_gelu is quick


def test_a_published_file_is_known_by_its_name(tmp_path):
    assert choose_weights(model_name="ViT-B-16", pretrained=str(tmp_path / "ViT-B-16.pt")).quick_gelu is True
    assert choose_weights(model_name="ViT-B-16", pretrained=str(tmp_path / "b16_fullcc2.5b.pt")).quick_gelu is True


def test_a_silent_tag_follows_the_models_own_configuration():
    assert open_clip.get_pretrained_cfg("roberta-ViT-B-32", "laion2b_s12b_b32k").get("quick_gelu") is None
    assert choose_weights(model_name="roberta-ViT-B-32", pretrained="laion2b_s12b_b32k").quick_gelu is True
    assert choose_weights(model_name="xlm-roberta-base-ViT-B-32", pretrained="laion5b_s13b_b90k").quick_gelu is False


@pytest.mark.parametrize("model_name", ["ViT-B-16", None])
def test_an_open_activation_is_warned_of(model_name, tmp_path):
    (tmp_path / "own.pt").touch()
    with pytest.warns(UserWarning, match="quick_gelu"):
        assert choose_weights(model_name=model_name, pretrained=str(tmp_path / "own.pt")).quick_gelu is None


@pytest.mark.parametrize(
    ("options", "origin", "row"),
    [
        (dict(clip_type="CLIP", pretrained="{}/ViT-B-16.pt"), "file", None),
        (dict(clip_type="CLIP", pretrained="{}/ViT-B-16.pt", pretrained_tag="openai"), "stated", "CLIP"),
        (dict(clip_type="CLIP", pretrained="{}/known.pt"), "published", "CLIP"),
        # The rows of the paper normalise with OpenAI's rounded numbers, and each tag has an activation of its own.
        (dict(model_name="ViT-B-16", pretrained="{}/known.pt"), "published", None),
        (dict(clip_type="CLIP", pretrained="{}/known.pt", quick_gelu=False), "published", None),
        (
            dict(model_name="ViT-B-16", pretrained="{}/known.pt", quick_gelu=True, normalization="openai"),
            "published",
            "CLIP",
        ),
        (
            dict(
                model_name="ViT-B-16",
                pretrained="{}/mine.pt",
                pretrained_tag="laion2b_s34b_b88k",
                normalization="openai",
            ),
            "stated",
            "OpenCLIP",
        ),
        (dict(clip_type="BLIP", pretrained="{}/model_base_14M.pth"), "file", None),
        (dict(model_name="miniature"), "published", "Miniature"),
        (dict(model_name="local-dir:{}/folder"), "file", None),
    ],
)
def test_weights_are_published_by_their_bytes(options, origin, row, tmp_path, monkeypatch):
    """A name says nothing: what counts is who fetched a file, what it holds, or what the user states."""
    for name in ("ViT-B-16.pt", "mine.pt", "model_base_14M.pth"):
        (tmp_path / name).write_bytes(b"weights")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"weights")
    (tmp_path / "known.pt").write_bytes(b"published")
    known = f"https://example.org/models/{hashlib.sha256(b'published').hexdigest()}/ViT-B-16.pt"
    cfg = open_clip.get_pretrained_cfg("ViT-B-16", "openai")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-16"], "openai", {**cfg, "url": known})
    options = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in options.items()}
    facts = weights_facts(ModelSettings(**options))
    assert (facts["origin"], facts["clip_type"]) == (origin, row)
    if "pretrained" in options:
        Path(options["pretrained"]).write_bytes(b"other bytes")
        assert weights_facts(ModelSettings(**options))["bytes"] != facts["bytes"]


def test_random_weights_are_known_by_what_they_are():
    settings = ModelSettings(clip_type="CLIP", pretrained="random")
    assert weights_facts(settings) is None
    first, second = (weights_facts(settings, tensor_digests(torch.nn.Linear(3, 3))) for _ in range(2))
    assert first["origin"] == "random"
    assert first["bytes"] != second["bytes"]


def test_random_weights_are_asked_for_by_name():
    with pytest.raises(UserError, match=r"ViT-B-32 has no weights of its own; .*laion2b.*, a file, or random"):
        choose_weights(model_name="ViT-B-32")
    assert choose_weights("CLIP", pretrained=None).pretrained == "openai"
    assert choose_weights(model_name="ViT-B-32", pretrained="random").label == "ViT-B-32 (random)"


def test_rows_of_the_table():
    assert choose_weights("CLIP", pretrained="random").quick_gelu is True
    assert choose_weights("CLIP", "ViT-B/16").label == "ViT-B-16 (openai)"
    assert choose_weights("OpenCLIP", "ViT-L/14").label == "ViT-L-14 (laion2b_s32b_b82k)"
    assert choose_weights("MetaCLIP", "ViT-L/14").pretrained == "metaclip_fullcc"
    assert choose_weights().label == "ViT-B-16 (openai)"
    assert choose_weights(model_name="miniature").label == choose_weights("Miniature").label == "miniature"
