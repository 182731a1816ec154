"""Weights as people have them, and as nobody should: layouts, wrappers, other grids, files that want to run code."""

from __future__ import annotations

import argparse
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from conftest import QUICK, make_model
from hub import Hub
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file
from torch import Tensor

from clearclip import ClearCLIP, UserError
from clearclip.backbones.checkpoints import read_checkpoint
from clearclip.backbones.clip_loading import _normalization
from clearclip.backbones.dense_encoder import UNCHANGED
from clearclip.weights import Weights, choose_weights, find_checkpoint

NOISE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), QUICK)


@pytest.fixture(scope="module")
def state(folder) -> dict[str, Tensor]:
    return torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever asks the hub fails the test; those that may have a server of their own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def any_precision(monkeypatch):
    """Also those that this CPU computes slowly."""
    monkeypatch.setattr("clearclip.utils.devices.possible_precisions", lambda _: ["fp32", "fp16", "bf16"])


def load(*names, **options) -> ClearCLIP:
    return ClearCLIP.from_pretrained(*names, device="cpu", cached=False, **options)


@torch.inference_mode()
def features(model: ClearCLIP) -> Tensor:
    return model.image_encoder(NOISE, [model.method])[0]


def assert_same(model: ClearCLIP, folder: Path) -> None:
    torch.testing.assert_close(features(model), features(load(f"local-dir:{folder}")))


# Layouts.


def test_a_folder_however_it_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for names in (
        (folder.name,),
        (str(folder),),
        (None, folder),
        (f"~/{folder.name}",),
        (f"local-dir:~/{folder.name}",),
    ):
        assert_same(load(*names), folder)
    assert_same(load(None, folder / "open_clip_pytorch_model.bin"), folder)


@pytest.mark.parametrize("name", ["weights.pt", "model.pth", "epoch_32.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_of_any_name_in_a_folder(name, folder, state, tmp_path):
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    torch.save({"step": torch.tensor(1)}, tmp_path / "optimizer.pt")
    assert find_checkpoint(Weights(f"local-dir:{tmp_path}", None)) == [tmp_path / name]
    assert_same(load(tmp_path), folder)
    assert_same(load(f"local-dir:{folder}", tmp_path), folder)


def test_which_of_several_weights_must_be_said(folder, tmp_path):
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    with pytest.raises(UserError, match=r"It has none \(open_clip_model.safetensors.*as pretrained"):
        load(tmp_path)
    for name in ("a.pt", "b.pt"):
        shutil.copy(folder / "open_clip_pytorch_model.bin", tmp_path / name)
    with pytest.raises(UserError, match=r"It has several \(a.pt, b.pt\)"):
        load(tmp_path)
    assert_same(load(tmp_path, tmp_path / "b.pt"), folder)


def shard(state: dict[str, Tensor], folder: Path, name: str = "model.safetensors") -> None:
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({one: state[one].contiguous() for one in part}, folder / file)
    listed = {one: file for file, part in parts.items() for one in part}
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))


def test_shards(folder, state, tmp_path):
    shutil.copy(folder / "open_clip_config.json", tmp_path)
    shard(state, tmp_path, "open_clip_model.safetensors")
    assert_same(load(tmp_path), folder)
    assert_same(load(folder, tmp_path / "open_clip_model.safetensors.index.json"), folder)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks the shards model-00002-of-00002\.safetensors"):
        load(tmp_path)
    index = tmp_path / "open_clip_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"visual.proj": "../../secret.safetensors"}}))
    with pytest.raises(UserError, match="does not list files beside it"):
        load(tmp_path)


def test_a_file_or_folder_in_the_current_folder_is_no_tag_or_model(folder, state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(state, "openai")
    shutil.copytree(folder, "ViT-B-16")
    with pytest.raises(UserError, match="cannot be fetched"):
        find_checkpoint(choose_weights("CLIP", pretrained="openai"))
    assert choose_weights(model_name="ViT-B-16", pretrained="./openai", quick_gelu=True).tag is None
    assert find_checkpoint(choose_weights(model_name="ViT-B-16", pretrained="./openai", quick_gelu=True)) == [
        Path("openai")
    ]
    assert choose_weights(model_name="ViT-B/16", pretrained="openai").model_name == "ViT-B-16"


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
    ("change", "words"),
    [
        ({"text_cfg": {"hf_tokenizer_name": "/etc/x"}}, "/etc/x cannot be fetched"),
        ({"text_cfg": {"hf_tokenizer_name": ["a"]}}, "cannot be fetched"),
        ({"text_cfg": {"hf_model_name": "some/bert"}}, "some/bert cannot be fetched"),
        ({"text_cfg": {"hf_model_name": "a/b/c"}}, "'a/b/c' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "/etc"}}, "'/etc' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": ".."}}, r"'\.\.' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "../other"}}, "'../other' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "~"}}, "'~' .* no other path is read"),
        ({"text_cfg": {"hf_model_name": "\0"}}, "no other path is read"),
        ({"text_cfg": {"tokenizer_kwargs": {"clean": "wildly"}}}, "the tokenizer .* cannot be loaded"),
        ({"text_cfg": {"context_length": "long"}}, "cannot be loaded|makes no model"),
        ({"text_cfg": {"heads": 3}}, "makes no model"),
        ({"vision_cfg": {"patch_size": 0}}, "makes no model"),
        ({"vision_cfg": {"timm_model_name": "/etc/passwd"}}, "makes no model"),
        ({"mean": "grey"}, "mean and std .* are no three numbers"),
        ({"std": [0, 0, 0]}, "mean and std .* are no three numbers"),
    ],
)
def test_odd_configurations_are_one_line(change, words, folder, tmp_path):
    described = json.loads((folder / "open_clip_config.json").read_text())
    for part, values in change.items():
        if part in ("mean", "std"):
            described["preprocess_cfg"] = change
        else:
            described["model_cfg"][part] |= values
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=words):
        load(tmp_path, "random")


@pytest.mark.parametrize(
    "name", [*("hf-hub:", "hf-hub:a//b", "hf-hub:../../etc", "local-dir:"), "x" * 5000, f"local-dir:{'y' * 300}"]
)
def test_odd_names_are_one_line(name):
    with pytest.raises(UserError):
        load(name)
    with pytest.raises(UserError):
        load("ViT-B-32", name)


# Hugging Face's layout.


def hugging_face(kind: str, folder: Path, side: int = 64):
    """A small CLIPModel or SiglipModel with its tokenizer, saved by transformers; returns the model."""
    transformers = pytest.importorskip("transformers")
    size = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    text = dict(**size, max_position_embeddings=16, vocab_size=49408 if kind == "clip" else 12)
    text |= {} if kind == "clip" else {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    names = ("CLIPConfig", "CLIPModel") if kind == "clip" else ("SiglipConfig", "SiglipModel")
    config, model = (getattr(transformers, name) for name in names)
    torch.manual_seed(0)
    model = model(config(text_config=text, vision_config=dict(size, image_size=side, patch_size=16))).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if kind == "siglip":
        save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of twelve words."""
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "sky", "tree", "the", "cat", "dog"]
    model = tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>", special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def pooled(output) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


@torch.inference_mode()
def assert_hugging_faces_own(model: ClearCLIP, own) -> None:
    encoder = model.image_encoder
    x = encoder.tokens(NOISE, "size")
    for part in encoder.parts((4, 4)):
        x = UNCHANGED([part], x)
    close = dict(rtol=1e-4, atol=1e-5)
    if encoder.has_class_token:
        torch.testing.assert_close(encoder.head(x[:, :1])[:, 0], pooled(own.get_image_features(NOISE)), **close)
    else:
        hidden = own.vision_model(NOISE).last_hidden_state
        torch.testing.assert_close(own.vision_model.post_layernorm(x), hidden, **close)
        # Attention over one token is that token's value.
        torch.testing.assert_close(encoder.head(x[:, 3:4])[:, 0], own.vision_model.head(hidden[:, 3:4]), **close)
    tokens = model.text_encoder.tokenizer(["a photo of a tree", "sky"])
    got = model.text_encoder.model.encode_text(tokens)
    torch.testing.assert_close(got, pooled(own.get_text_features(input_ids=tokens)), **close)
    assert features(model).shape == (1, 4, 4, encoder.dim)
    assert model.segment(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy(), ["sky", "tree"]).labels.shape == (64, 64)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_faces_layout(kind, tmp_path, any_precision):
    own = hugging_face(kind, tmp_path)
    model = load(tmp_path)
    assert_hugging_faces_own(model, own)
    halves = load(tmp_path, precision="bf16")
    assert features(halves).dtype == torch.bfloat16
    close = torch.nn.functional.cosine_similarity(features(halves).float(), features(model), dim=-1)
    assert close.min() > 0.99
    wanted = model.encode_text(["sky"]).features
    torch.testing.assert_close(halves.encode_text(["sky"]).features, wanted, rtol=0, atol=0.05)
    openais = pytest.approx([122.771, 116.746, 104.094], abs=1e-3)
    assert model.mean.flatten().tolist() == (pytest.approx([127.5] * 3) if kind == "siglip" else openais)
    for names in ((f"local-dir:{tmp_path}",), (None, tmp_path), (None, tmp_path / "model.safetensors")):
        torch.testing.assert_close(features(load(*names)), features(model))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    assert load(tmp_path).mean.flatten().tolist() == pytest.approx([25.5] * 3)
    assert load(tmp_path, normalization="openai").mean.flatten().tolist() == openais
    (tmp_path / "model.safetensors").unlink()
    shard(own.state_dict(), tmp_path)
    assert_hugging_faces_own(load(tmp_path), own)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_faces_layout_from_the_hub(kind, tmp_path, monkeypatch):
    own = hugging_face(kind, tmp_path)
    with Hub() as server:
        server.files = {f"some/one/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        assert_hugging_faces_own(load("hf-hub:some/one"), own)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_hugging_faces_own(load("hf-hub:some/one"), own)


# Wrappers, prefixes and what does not fit.


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model_state_dict": state, "optimizer": {"step": torch.tensor(3)}},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {name.replace("visual.", "visual._orig_mod."): value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {"ema": {f"module.net.clip.{name}": value for name, value in state.items()}, "epoch": 3},
        lambda state: {**state, "input_resolution": torch.tensor(64), "context_length": torch.tensor(24),
                       "vocab_size": torch.tensor(49408)},  # OpenAI's archive, saved again as a dict
        lambda state: {**state, "attn_mask": torch.zeros(24, 24), "logit_scale": state["logit_scale"].reshape(1)},
    ],
)  # fmt: skip
def test_wrappers_and_prefixes(wrap, folder, state, tmp_path):
    torch.save(wrap(state), tmp_path / "a.pt")
    assert_same(load(f"local-dir:{folder}", tmp_path / "a.pt"), folder)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "best_acc1": torch.tensor(71.2)},  # as the ImageNet example's
        lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1, data="x", nested=argparse.Namespace())},
        lambda state: {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "model": state},
        lambda state: {"loss": torch.tensor(1.0), "weights": {"student": state}},
    ],
)
def test_weights_beside_what_else_a_training_keeps(wrap, folder, state, tmp_path):
    torch.save(wrap(state), tmp_path / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load(f"local-dir:{folder}", tmp_path / "a.pt"), folder)


def test_a_head_beside_the_model_is_left_out_with_a_word(folder, state, tmp_path):
    lightning = {f"model.{name}": value for name, value in state.items()} | {"ff_head.weight": torch.ones(3, 3)}
    torch.save({"state_dict": lightning, "epoch": 3}, tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match=r"a\.ckpt: ff_head\.weight are no part of the model and are left out"):
        assert_same(load(f"local-dir:{folder}", tmp_path / "a.ckpt"), folder)


@pytest.mark.parametrize("order", [("state_dict", "state_dict_ema"), ("state_dict_ema", "state_dict")])
def test_which_of_two_state_dicts_is_taken_is_said(order, folder, state, tmp_path):
    averaged = {name: torch.zeros_like(value) for name, value in state.items()}
    both = {"state_dict": state, "state_dict_ema": averaged}
    torch.save({name: both[name] for name in order}, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"several weights that fit: state_dict, state_dict_ema; state_dict is taken"):
        assert_same(load(f"local-dir:{folder}", tmp_path / "a.pt"), folder)


def test_a_teacher_beside_the_student_is_said(folder, state, tmp_path):
    both = {f"student.{name}": value for name, value in state.items()}
    both |= {f"teacher.{name}": torch.zeros_like(value) for name, value in state.items()}
    torch.save(both, tmp_path / "a.pt")
    with pytest.warns(UserWarning) as warned:
        assert_same(load(f"local-dir:{folder}", tmp_path / "a.pt"), folder)
    assert "student.*" in str(warned[0].message) and "teacher.*" in str(warned[0].message)


class Foreign:
    """What a training script may keep beside its weights."""


@pytest.mark.parametrize("thing", [Foreign(), np.float64(71.2), Path("data")])
def test_no_unsafe_advice(thing, folder, state, tmp_path):
    torch.save({"state_dict": state, "extra": thing}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt holds more than weights") as error:
        load(f"local-dir:{folder}", tmp_path / "a.pt")
    message = str(error.value)
    assert "\n" not in message and "save its state dict alone" in message
    for advice in ("weights_only", "safe_globals", "allowlist", "trust"):
        assert advice not in message


def test_safetensors_by_another_name(folder, state, tmp_path):
    save_file(state, tmp_path / "a.bin")
    assert_same(load(f"local-dir:{folder}", tmp_path / "a.bin"), folder)


def only(start: str, state: dict[str, Tensor], cut: int = 0) -> dict[str, Tensor]:
    return {name[cut:]: value for name, value in state.items() if name.startswith(start)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, p: only("visual.", s), r"it lacks positional_embedding.*It holds an image tower only"),
        (lambda s, p: only("visual.", s, 7), r"it lacks .*; it has left over .*It holds an image tower only"),
        (lambda s, p: {**s, "visual.proj": p[:5]}, r"visual\.proj \(5, 32\) in place of \(32, 32\)"),
        (lambda s, p: {**s, "visual.proj": p.to(torch.int8)}, r"not as floating-point .*visual\.proj \(torch\.int8\)"),
        (lambda s, p: {**s, "visual.proj": p.to(torch.complex64)}, r"visual\.proj \(torch\.complex64\)"),
        (lambda s, p: {"text_model.a": p, "vision_model.b": p}, "It is in Hugging Face's layout"),
        (lambda s, p: {"visual_encoder.a": p}, "It is BLIP's: set clip_type"),
        (lambda s, p: {"fc.weight": p}, r"has left over fc\.weight\. Check that file and model belong together"),
        (lambda s, p: {"state_dict": {"epoch": 3}}, "holds no weights"),
        (lambda s, p: {"a": 1}, "holds no weights"),
    ],
)
def test_what_does_not_fit_is_named(change, words, folder, state, tmp_path):
    torch.save(change(state, state["visual.proj"]), tmp_path / "a.pt")
    with pytest.raises(UserError, match=words) as error:
        load(f"local-dir:{folder}", tmp_path / "a.pt")
    assert "a.pt" in str(error.value)


def test_a_checkpoint_keeps_its_own_grid(folder, state, tmp_path):
    """Positions of an 8 × 8 grid for a model of 4 × 4 are not resampled."""
    grown = {**state, "visual.positional_embedding": torch.randn(65, 32)}
    torch.save(grown, tmp_path / "a.pt")
    model = load(f"local-dir:{folder}", tmp_path / "a.pt")
    assert model.image_encoder.grid_size == (8, 8)
    assert model.image_encoder.image_size == 128
    kept = model.image_encoder.visual.positional_embedding
    torch.testing.assert_close(kept, grown["visual.positional_embedding"])
    resize_pos_embed(grown, load(f"local-dir:{folder}").text_encoder.model)  # as OpenCLIP would
    assert grown["visual.positional_embedding"].shape == (17, 32)
    torch.save({**state, "visual.positional_embedding": torch.randn(66, 32)}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"visual\.positional_embedding \(66, 32\) in place of \(17, 32\)"):
        load(f"local-dir:{folder}", tmp_path / "b.pt")


# Code.


def traced(folder: Path, path: Path) -> None:
    """As OpenAI's archives."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    inputs = {"encode_image": torch.zeros(1, 3, 64, 64), "encode_text": torch.zeros(1, 24, dtype=torch.int64)}
    torch.jit.trace_module(model, inputs, check_trace=False).save(str(path))


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_read_as_tensors(folder, state, tmp_path, monkeypatch):
    traced(folder, tmp_path / "a.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("run"))
    found = read_checkpoint([tmp_path / "a.pt"])
    assert found.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found[name], value)
    assert_same(load(f"local-dir:{folder}", tmp_path / "a.pt"), folder)


class Bomb(torch.nn.Module):
    """Loaded by PyTorch, it writes a file."""

    def __init__(self, target: str):
        super().__init__()
        self.target = target
        self.weight = torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self):
        return (self.target, self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]):
        self.target = state[0]
        self.weight = state[1]
        self.training = state[2]
        torch.save(self.weight, self.target)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_torchscript_archive_is_not_run(folder, tmp_path):
    target = tmp_path / "written"
    torch.jit.script(Bomb(str(target))).save(str(tmp_path / "bomb.pt"))
    torch.jit.load(str(tmp_path / "bomb.pt"))
    assert target.exists()  # the bomb works
    target.unlink()
    with pytest.raises(UserError, match=r"bomb\.pt"):
        load(f"local-dir:{folder}", tmp_path / "bomb.pt")
    assert not target.exists()


@pytest.mark.parametrize("where", ["tokenizer_kwargs", "auto_map", "config.json"])
def test_code_in_a_model_folder_is_not_run(where, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
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
def test_a_tokenizer_names_no_other_path(entry, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_tokenizer(tmp_path)
    described = json.loads((tmp_path / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/bert"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    own = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**own, **entry}))
    with pytest.raises(UserError, match="no other path than its folder is read; remove that entry"):
        load(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    (model / "bert").symlink_to(tmp_path / "elsewhere")
    described = json.loads((model / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"]["hf_model_name"] = "bert"
    (model / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="bert cannot be fetched"):
        load(model)


def test_a_timm_model_of_somebody_is_not_fetched(folder, tmp_path):
    described = json.loads((folder / "open_clip_config.json").read_text())
    described["model_cfg"]["vision_cfg"] = {"timm_model_name": "hf-hub:evil/one", "image_size": 64}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="'hf-hub:evil/one', a model of somebody's"):
        load(tmp_path)


# Text towers of Hugging Face's.


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


@pytest.mark.parametrize(
    ("vision", "text"), [({"ls_init_value": 0.1}, {}), ({}, {"embed_cls": True, "ls_init_value": 0.1}), ({}, {})]
)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_of_every_part(vision, text, precision, tmp_path, any_precision):
    """What OpenCLIP leaves in fp32 does not meet the rest."""
    config = {**QUICK, "vision_cfg": {**QUICK["vision_cfg"], **vision}, "text_cfg": {**QUICK["text_cfg"], **text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = load(tmp_path, "random", precision=precision)
    assert features(model).isfinite().all()
    assert features(model).dtype == getattr(torch, {"fp16": "float16", "bf16": "bfloat16"}[precision])
    assert model.encode_text(["sky"]).features.isfinite().all()


def test_normalization_is_the_checkpoints_own():
    """But for the rows of the published tables, and what is said."""
    own = {"ViT-B-16-SigLIP": ("webli", [127.5] * 3), "ViT-B-16": ("openai", [122.77, 116.75, 104.09])}
    for name, (tag, mean) in own.items():
        for one in (Weights(name, tag, tag=tag), Weights(name, "random"), Weights(name, "/some/file.pt")):
            assert [255 * value for value in _normalization(one, {})[0]] == pytest.approx(mean, abs=0.01)
