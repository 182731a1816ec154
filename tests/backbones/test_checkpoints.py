"""Weights as training scripts keep them, what does not fit, and files that want to run code."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from model_files import assert_same, load
from safetensors.torch import save_file
from torch import Tensor

from clearclip import ClearCLIP, UserError
from clearclip.backbones.checkpoints import read_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")


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
def test_wrappers_and_prefixes(wrap, quick_folder, quick_state, tmp_path):
    torch.save(wrap(quick_state), tmp_path / "a.pt")
    assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.pt"), quick_folder)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "best_acc1": torch.tensor(71.2)},  # as the ImageNet example's
        lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1, data="x", nested=argparse.Namespace())},
        lambda state: {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "model": state},
        lambda state: {"loss": torch.tensor(1.0), "weights": {"student": state}},
    ],
)
def test_weights_beside_what_else_a_training_keeps(wrap, quick_folder, quick_state, tmp_path):
    torch.save(wrap(quick_state), tmp_path / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.pt"), quick_folder)


def test_a_head_beside_the_model_is_left_out_with_a_word(quick_folder, quick_state, tmp_path):
    lightning = {f"model.{name}": value for name, value in quick_state.items()} | {"ff_head.weight": torch.ones(3, 3)}
    torch.save({"state_dict": lightning, "epoch": 3}, tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match=r"a\.ckpt: ff_head\.weight are no part of the model and are left out"):
        assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.ckpt"), quick_folder)


@pytest.mark.parametrize("order", [("state_dict", "state_dict_ema"), ("state_dict_ema", "state_dict")])
def test_which_of_two_state_dicts_is_taken_is_said(order, quick_folder, quick_state, tmp_path):
    averaged = {name: torch.zeros_like(value) for name, value in quick_state.items()}
    both = {"state_dict": quick_state, "state_dict_ema": averaged}
    torch.save({name: both[name] for name in order}, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"several weights that fit: state_dict, state_dict_ema; state_dict is taken"):
        assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.pt"), quick_folder)


def test_a_teacher_beside_the_student_is_said(quick_folder, quick_state, tmp_path):
    both = {f"student.{name}": value for name, value in quick_state.items()}
    both |= {f"teacher.{name}": torch.zeros_like(value) for name, value in quick_state.items()}
    torch.save(both, tmp_path / "a.pt")
    with pytest.warns(UserWarning) as warned:
        assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.pt"), quick_folder)
    assert "student.*" in str(warned[0].message) and "teacher.*" in str(warned[0].message)


class Foreign:
    """What a training script may keep beside its weights."""


@pytest.mark.parametrize("thing", [Foreign(), np.float64(71.2), Path("data")])
def test_no_unsafe_advice(thing, quick_folder, quick_state, tmp_path):
    torch.save({"state_dict": quick_state, "extra": thing}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt holds more than weights") as error:
        load(f"local-dir:{quick_folder}", tmp_path / "a.pt")
    message = str(error.value)
    assert "\n" not in message and "save its state dict alone" in message
    for advice in ("weights_only", "safe_globals", "allowlist", "trust"):
        assert advice not in message


def test_safetensors_by_another_name(quick_folder, quick_state, tmp_path):
    save_file(quick_state, tmp_path / "a.bin")
    assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.bin"), quick_folder)


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
def test_what_does_not_fit_is_named(change, words, quick_folder, quick_state, tmp_path):
    torch.save(change(quick_state, quick_state["visual.proj"]), tmp_path / "a.pt")
    with pytest.raises(UserError, match=words) as error:
        load(f"local-dir:{quick_folder}", tmp_path / "a.pt")
    assert "a.pt" in str(error.value)


def traced(folder: Path, path: Path) -> None:
    """As OpenAI's archives."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    inputs = {"encode_image": torch.zeros(1, 3, 64, 64), "encode_text": torch.zeros(1, 24, dtype=torch.int64)}
    torch.jit.trace_module(model, inputs, check_trace=False).save(str(path))


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_read_as_tensors(quick_folder, quick_state, tmp_path, monkeypatch):
    traced(quick_folder, tmp_path / "a.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("run"))
    found = read_checkpoint([tmp_path / "a.pt"])
    assert found.keys() == quick_state.keys()
    for name, value in quick_state.items():
        torch.testing.assert_close(found[name], value)
    assert_same(load(f"local-dir:{quick_folder}", tmp_path / "a.pt"), quick_folder)


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
def test_code_in_a_torchscript_archive_is_not_run(quick_folder, tmp_path):
    target = tmp_path / "written"
    torch.jit.script(Bomb(str(target))).save(str(tmp_path / "bomb.pt"))
    torch.jit.load(str(tmp_path / "bomb.pt"))
    assert target.exists()  # the bomb works
    target.unlink()
    with pytest.raises(UserError, match=r"bomb\.pt"):
        load(f"local-dir:{quick_folder}", tmp_path / "bomb.pt")
    assert not target.exists()


def test_file_gives_the_weights_of_the_folder(tiny_folder, tiny_name, tmp_path):
    """A checkpoint as a file (state dict, or under 'state_dict', with 'module.' before the names) equals the folder."""
    open_clip.add_model_config(config_file(tiny_folder, tmp_path))
    state = torch.load(tiny_folder / "open_clip_pytorch_model.bin", weights_only=True)
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pt"
    )
    image = torch.randn(1, 3, 64, 64)
    wanted = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    got = ClearCLIP.from_pretrained("tiny-test-model", tmp_path / "a.pt", device="cpu")
    torch.testing.assert_close(*(model.image_encoder(image, [model.method]) for model in (got, wanted)))


def config_file(folder: Path, target: Path) -> Path:
    path = target / "tiny-test-model.json"
    path.write_text(json.dumps(json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]))
    return path


class PickleBomb:
    """A pickle that makes a file when it is loaded as code."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_malicious_pickle_executes_nothing(writer, tiny_folder, tmp_path):
    target, file = tmp_path / "executed", tmp_path / "weights.pt"
    if writer == "torch":
        torch.save({"state_dict": PickleBomb(target)}, file)
    else:
        file.write_bytes(pickle.dumps(PickleBomb(target)))
    open_clip.add_model_config(config_file(tiny_folder, tmp_path))
    with pytest.raises(UserError, match=str(file)):
        ClearCLIP.from_pretrained("tiny-test-model", str(file), device="cpu")
    assert not target.exists()


def test_other_weights_are_named(tiny_folder, tmp_path):
    open_clip.add_model_config(config_file(tiny_folder, tmp_path))
    state = torch.load(tiny_folder / "open_clip_pytorch_model.bin", weights_only=True)
    del state["visual.proj"]
    torch.save(state, tmp_path / "lacking.pt")
    with pytest.raises(UserError, match=r"visual\.proj"):
        ClearCLIP.from_pretrained("tiny-test-model", str(tmp_path / "lacking.pt"), device="cpu")
