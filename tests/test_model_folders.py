"""Folders and repositories with a model, however they are named."""

from __future__ import annotations

import json

import pytest
from model_files import assert_same, load

from clearclip import UserError

pytestmark = pytest.mark.usefixtures("no_network")


def test_a_folder_however_it_is_named(quick_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(quick_folder.parent)
    monkeypatch.setenv("HOME", str(quick_folder.parent))
    for names in (
        (quick_folder.name,),
        (str(quick_folder),),
        (None, quick_folder),
        (f"~/{quick_folder.name}",),
        (f"local-dir:~/{quick_folder.name}",),
    ):
        assert_same(load(*names), quick_folder)
    assert_same(load(None, quick_folder / "open_clip_pytorch_model.bin"), quick_folder)


def test_a_model_that_a_folder_does_not_describe(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name in (tmp_path, f"local-dir:{tmp_path}"):
        with pytest.raises(UserError, match=r"has neither open_clip_config.json .* nor the config.json of a CLIPModel"):
            load(name)
    for text in ("{", "[]", '{"model_cfg": 3}', '{"model_cfg": {"vision_cfg": {"layers": "x"}, "text_cfg": {}}}', "{}"):
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(UserError, match=r"download it again|makes no model") as error:
            load(tmp_path)
        assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "name", [*("hf-hub:", "hf-hub:a//b", "hf-hub:../../etc", "local-dir:"), "x" * 5000, f"local-dir:{'y' * 300}"]
)
def test_odd_names_are_one_line(name):
    with pytest.raises(UserError):
        load(name)
    with pytest.raises(UserError):
        load("ViT-B-32", name)
