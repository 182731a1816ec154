"""Tokenizers and text towers from local files; none of their code is run."""

from __future__ import annotations

import json
import shutil

import open_clip
import pytest
import torch
from conftest import QUICK
from model_files import load, save_tokenizer

from clearclip import UserError

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.mark.parametrize("where", ["tokenizer_kwargs", "auto_map", "config.json"])
def test_code_in_a_model_folder_is_not_run(where, quick_folder, tmp_path):
    shutil.copytree(quick_folder, tmp_path, dirs_exist_ok=True)
    save_tokenizer(tmp_path)
    target = tmp_path / "written"
    (tmp_path / "evil.py").write_text(f"open({str(target)!r}, 'w')\nclass Evil: pass\n")
    described = json.loads((tmp_path / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": str(tmp_path),
        "vocab_size": 49408,
        "tokenizer_kwargs": {"trust_remote_code": True, "clean": "lower"},
    }
    own = json.loads((tmp_path / "tokenizer_config.json").read_text())
    if where == "auto_map":
        own = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    if where == "config.json":
        described["model_cfg"]["text_cfg"]["hf_model_name"] = str(tmp_path)
        (tmp_path / "config.json").write_text(
            json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}})
        )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    if where == "tokenizer_kwargs":
        assert load(tmp_path).encode_text(["sky", "tree"]).features.shape == (2, 32)
    else:
        with pytest.raises(UserError, match=r"tokenizer in .* cannot be loaded|code of its own, which is not run"):
            load(tmp_path)
    assert not target.exists()


@pytest.mark.parametrize("entry", [{"vocab_file": "/etc/passwd"}, {"fast_tokenizer_files": ["../tokenizer.1.json"]}])
def test_a_tokenizer_names_no_other_path(entry, quick_folder, tmp_path):
    shutil.copytree(quick_folder, tmp_path, dirs_exist_ok=True)
    save_tokenizer(tmp_path)
    described = json.loads((tmp_path / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/bert"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    own = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**own, **entry}))
    with pytest.raises(UserError, match="no other path than its folder is read; remove that entry"):
        load(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(quick_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    model = tmp_path / "model"
    shutil.copytree(quick_folder, model)
    (model / "bert").symlink_to(tmp_path / "elsewhere")
    described = json.loads((model / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"]["hf_model_name"] = "bert"
    (model / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="bert cannot be fetched"):
        load(model)


def test_a_text_tower_with_files_in_the_folder(tmp_path, monkeypatch, any_precision):
    """Configuration and tokenizer are local, base weights are not asked for; in half precision as well."""
    transformers = pytest.importorskip("transformers")
    size = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    (tmp_path / "bert").mkdir()
    transformers.BertConfig(vocab_size=12, **size).save_pretrained(tmp_path / "bert")
    save_tokenizer(tmp_path)
    text = {"hf_model_name": str(tmp_path / "bert"), "hf_tokenizer_name": "some/bert", "context_length": 16}
    config = {**QUICK, "text_cfg": {**text, "hf_pooler_type": "mean_pooler"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = load(tmp_path, "random")
    assert model.encode_text(["sky", "the cat"]).features.shape == (2, 32)
    torch.save(model.text_encoder.model.state_dict(), tmp_path / "weights.pt")
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("base weights"))
    torch.testing.assert_close(load(tmp_path).encode_text(["sky"]).features, model.encode_text(["sky"]).features)
    halves = load(tmp_path, precision="bf16").encode_text(["sky"]).features
    torch.testing.assert_close(halves, model.encode_text(["sky"]).features, rtol=0, atol=0.05)
    config["text_cfg"]["tokenizer_kwargs"] = {"strip_sep_token": True}  # there is none
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be loaded"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"some/bert cannot be fetched .*put the tokenizer's files"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [("ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP"), ("xlm-roberta-base-ViT-B-32", "xlm-roberta-base")],
)
def test_a_tokenizer_without_network(name, what, monkeypatch, tmp_path):
    """One line, before a model is built or its weights are asked for; nothing is waited for."""
    asked = []

    def nobody(url, **options):
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("clearclip.utils.hub.get_hf_file_metadata", nobody)
    monkeypatch.setattr("clearclip.utils.hub.hf_hub_download", nobody)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("clearclip.backbones.clip_loading.find_checkpoint", lambda weights: pytest.fail("fetched"))
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(UserError, match=rf"of {what} cannot be fetched .*put the tokenizer's files"):
        load(name, open_clip.list_pretrained_tags_by_model(name)[0])
    assert len(asked) == 2
