"""Checkpoints as data: read without running anything in them, whatever wraps the weights, and compared with a model."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from clearclip.utils.errors import UserError

#: Names under which training scripts keep a state dict.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
#: Constants that some files have beside the weights.
CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")
#: What PyTorch says beside the reason: how to run such a file all the same.
_ADVICE = re.compile(
    r"(?s)Weights only load .*?trusted source\.|\(2\) Alternatively.*?message\.|Please file an issue.*?: |"
    r"Check the documentation.*"
)


def reason(error: Exception) -> str:
    """Why a loader does not take a file, in at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {_ADVICE.sub(' ', str(error))}".split())[:300]


def read_checkpoint(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The weights in a file, or in the shards of one, by name.

    Safetensors, PyTorch's files (loaded with ``weights_only``) and TorchScript archives such as OpenAI's, of which the
    tensors are read and no code is run.

    Raises:
        UserError: a file that is damaged, or holds more than weights; names the file.
    """
    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            found = _unwrap(_read(path))
        except Exception as error:  # damaged files make loaders raise all sorts of errors
            raise UserError(
                f"{path} holds more than weights or is damaged, and was not run ({reason(error)}); check that it is "
                "whole, or use safetensors"
            ) from error
        if not found:
            raise UserError(f"{path} holds no weights; give a file with a state dict")
        state |= found
    return state


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(9)
    if start[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2]: name for name in archive.namelist()}
            if "constants.pkl" in names:
                return _read_torchscript(archive, names["data.pkl"])
    elif start[8:] == b"{":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


class _Scripted(dict):
    """The attributes of a scripted module, whose class is never looked for."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


def _read_torchscript(archive: zipfile.ZipFile, description: str) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive by their dotted names."""
    folder = description.removesuffix("data.pkl")
    dtypes = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
              "LongStorage": torch.int64, "DoubleStorage": torch.float64}  # fmt: skip

    def rebuild(flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
        return flat.as_strided(size, stride, offset)

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("__torch__"):
                return _Scripted
            if module == "torch" and name in dtypes:
                return dtypes[name]
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return rebuild
            if module == "torch.jit._pickle":  # what marks the type of a list
                return lambda value, *_: value
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            raise pickle.UnpicklingError(f"it has a {module}.{name}")

        def persistent_load(self, key: tuple) -> Tensor:
            _, dtype, name, _, count = key
            return torch.frombuffer(bytearray(archive.read(f"{folder}data/{name}")), dtype=dtype, count=count)

    found: dict[str, Tensor] = {}

    def walk(module: _Scripted, prefix: str) -> None:
        for name, value in module.items():
            if isinstance(value, _Scripted):
                walk(value, f"{prefix}{name}.")
            elif isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value

    walk(Reader(io.BytesIO(archive.read(description))).load(), "")
    return found


def _unwrap(loaded: Any) -> dict[str, Tensor]:
    """The tensors in what a file holds, without wrappers and prefixes."""
    while isinstance(loaded, Mapping) and not any(isinstance(value, Tensor) for value in loaded.values()):
        inner = {name: value for name, value in loaded.items() if isinstance(value, Mapping)}
        loaded = next((inner[name] for name in (*WRAPPERS, *inner) if name in inner), None)
    state = {name: value for name, value in (loaded or {}).items() if isinstance(value, Tensor)}
    state = {name.replace("_orig_mod.", ""): value for name, value in state.items() if not name.endswith(CONSTANTS)}
    starts = (f".{name}".partition(f".{tower}.") for name in state for tower in ("visual", "vision_model"))
    prefix = next((f"{before}."[1:] for before, found, _ in starts if found), "")
    return {name.removeprefix(prefix): value for name, value in state.items()}


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load weights into a model, all of them and nothing else.

    Args:
        model: OpenCLIP's, or another.
        state: as it is read; changed names of older versions of OpenCLIP and of MobileCLIP are known.
        source: where it comes from, for the error.

    Raises:
        UserError: weights that are missing, left over, of another shape or no floating-point numbers; names them.
    """
    state = convert_state_dict(model, state)
    own = model.state_dict()
    if hasattr(model, "text") and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # a number, or a vector with one
        if name in state and name in own and state[name].numel() == 1:
            state[name] = state[name].reshape(own[name].shape)
    if "logit_bias" in own:
        state.setdefault("logit_bias", torch.zeros_like(own["logit_bias"]))
    both = [name for name in own if name in state]
    faults = {
        "lacks": [name for name in own if name not in state],
        "has left over": [name for name in state if name not in own],
        "has in another shape": [
            f"{name} {tuple(state[name].shape)} in place of {tuple(own[name].shape)}"
            for name in both
            if state[name].shape != own[name].shape
        ],
        "has not as floating-point numbers": [
            f"{name} ({state[name].dtype})"
            for name in both
            if own[name].is_floating_point() and not state[name].is_floating_point()
        ],
    }
    said = [
        f"it {what} {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        for what, names in faults.items()
        if names
    ]
    if said:
        raise UserError(f"{source} does not fit: {'; '.join(said)}. {_what_it_holds(state)}")
    model.load_state_dict(state)


def _what_it_holds(state: dict[str, Tensor]) -> str:
    heads = {name.partition(".")[0] for name in state}
    if heads & {"text_model", "vision_model"}:
        return "It is in Hugging Face's layout: put its config.json beside it and name the folder as model_name"
    if "visual_encoder" in heads:
        return "It is BLIP's: set clip_type to BLIP"
    if heads & {"conv1", "class_embedding", "patch_embed", "blocks"} or heads == {"visual"}:
        return "It holds an image tower only: a text tower is needed as well"
    return "Check that file and model belong together"


def check_finite(tower: nn.Module, label: str) -> None:
    """Raise a UserError where a tower has weights that are not finite."""
    for name, tensor in tower.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"the weights of {label} have NaN or infinite values in {name}; download them again")
