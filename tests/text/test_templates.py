"""Templates by name and from a file."""

from __future__ import annotations

import open_clip
import pytest
import torch

from clearclip import ClearCLIP, UserError
from clearclip.model_settings import ModelSettings
from clearclip.text import read_templates


def test_names():
    imagenet = [template("a {} sky") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert [template("a {} sky") for template in read_templates("imagenet80")] == imagenet
    assert [template("sky") for template in read_templates("tips9")][-2:] == [
        "a photo of many sky.",
        "a photo of skys.",
    ]
    assert [template("sky") for template in read_templates("talk2dino7")] == [
        template("sky") for template in read_templates("tips9")
    ][:7]
    assert [template("sky") for template in read_templates("one")] == ["a photo of a sky."]


def test_a_file(tmp_path, quick_name):
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {}.\n\n a drawing of a {}\n", encoding="utf-8")
    assert [template("tree") for template in read_templates(path)] == ["a photo of a tree.", "a drawing of a tree"]
    options = dict(device="cpu", cached=False)
    features = [
        ClearCLIP.from_pretrained(quick_name, templates=templates, **options).encode_text(["tree"]).features
        for templates in (path, "one", "imagenet80")
    ]
    assert not torch.allclose(features[0], features[1], atol=1e-4)
    assert not torch.allclose(features[0], features[2], atol=1e-4)


@pytest.mark.parametrize("content", ["", "a photo of a tree", "{} and {}", None])
def test_what_is_no_template_is_one_line(content, tmp_path, quick_name):
    path = tmp_path / "templates.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"needs \{\} once, for the word|is neither a name"):
        ClearCLIP.from_pretrained(quick_name, templates=str(path), device="cpu")


def test_they_are_among_the_facts_by_content(tmp_path):
    assert "templates" not in ModelSettings().facts()
    assert ModelSettings(templates="tips9").facts()["templates"] == "tips9"
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("a {}")
    second.write_text("a {}")
    assert ModelSettings(templates=first).facts() == ModelSettings(templates=second).facts()
    second.write_text("the {}")
    assert ModelSettings(templates=first).facts() != ModelSettings(templates=second).facts()


def test_each_set_has_a_cache_of_its_own(quick_name, tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARCLIP_CACHE", str(tmp_path))
    keys = {
        ClearCLIP.from_pretrained(quick_name, templates=name, device="cpu").text_encoder.fingerprint()
        for name in ("imagenet80", "tips9", "talk2dino7", "one")
    }
    assert len(keys) == 4
