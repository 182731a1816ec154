"""Checkpoints as data: read without running anything in them, whatever wraps the weights, and compared with a model."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from clearclip.utils.errors import UserError

#: Names under which training scripts keep a state dict, the usual one first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net")
#: Constants that some files have beside the weights.
CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")
#: PyTorch's names of storages → what their numbers are.
_STORAGE_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64, "DoubleStorage": torch.float64,
}  # fmt: skip
#: What PyTorch appends to the reason for which it does not read a file: how to run the code in it all the same.
_ADVICE = re.compile(
    r"(?s)Weights only load .*?trusted source\.|\(2\) Alternatively.*?message\.|Please file an issue.*?: |"
    r"Please use `torch\.serialization.*|Check the documentation.*"
)


def reason(error: Exception) -> str:
    """Why a loader does not take a file, in at most 300 characters."""
    foreign = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
    if foreign:
        return f"beside weights it has a {foreign[1]}"
    return " ".join(f"{type(error).__name__}: {_ADVICE.sub(' ', str(error))}".split())[:300]


def read_checkpoint(paths: Sequence[Path], names: Collection[str] = ()) -> dict[str, Tensor]:
    """The weights in a file, or in the shards of one, by name.

    A training script may wrap them in a dict, with a prefix before their names, and beside other tensors: taken is
    what has most names of the model. Where two state dicts have as many (trained and averaged weights), a warning says
    which one is taken.

    Args:
        paths: the files: safetensors, PyTorch's (loaded with ``weights_only``), or TorchScript archives such as
            OpenAI's, of which the tensors are read and no code is run.
        names: of the model's weights, or some of them.

    Raises:
        UserError: a file that is damaged, or holds more than weights; names the file.
    """
    state: dict[str, Tensor] = {}
    for path in paths:
        weights = _best_state_dict(path, read_file(path), set(names))
        if not weights:
            raise UserError(f"{path} holds no weights; give a file with a state dict")
        state |= weights
    return state


def read_file(path: Path) -> Any:
    """What a checkpoint holds, as it was saved: tensors, numbers, texts, dicts and lists of them, argparse's options.

    Raises:
        UserError: a file that is damaged, or holds more than that; names the file.
    """
    try:
        return _load_file(path)
    except Exception as error:  # damaged files make loaders raise all sorts of errors
        raise UserError(
            f"{path} holds more than weights or is damaged, and was not run ({reason(error)}); check that it is whole, "
            "or save its state dict alone where it comes from, as safetensors"
        ) from error


def _load_file(path: Path) -> Any:
    """What a file holds, by the loader of its kind, which its first bytes say and not its name."""
    with open(path, "rb") as file:
        head = file.read(9)
    if head[:2] == b"PK":  # a zip archive: PyTorch's, or TorchScript's
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2]: name for name in archive.namelist()}
            # By this package: torch.jit.load would compile the code in the archive.
            if "constants.pkl" in names:
                return _read_torchscript(archive, names["data.pkl"])
    elif head[8:] == b"{":  # safetensors: the length of a JSON header, and that
        return load_file(path)
    # The options of a training script, which are plain data once they are read as such.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


class _Scripted(dict):
    """The attributes of a scripted module, whose class is never looked for."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


def _view_of_storage(flat: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """A tensor from the numbers of its storage, as ``torch._utils._rebuild_tensor_v2`` makes it."""
    return flat.as_strided(size, stride, offset)


class _TorchScriptReader(pickle.Unpickler):
    """Unpickles tensors and modules' attributes. Of all other classes and functions none is looked up, so none is run.

    Args:
        archive: the TorchScript file.
        description: the name of the pickle in it, "…/data.pkl"; storages are beside it.
    """

    def __init__(self, archive: zipfile.ZipFile, description: str):
        super().__init__(io.BytesIO(archive.read(description)))
        self.archive = archive
        self.folder = description.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Scripted
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view_of_storage
        if module == "torch.jit._pickle":  # what marks the type of a list
            return lambda value, *_: value
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"it has a {module}.{name}")

    def persistent_load(self, key: tuple) -> Tensor:
        """The numbers of a storage, flat. ``key`` is PyTorch's: "storage", its type, its name, device, length."""
        _, dtype, name, _, count = key
        data = self.archive.read(f"{self.folder}data/{name}")
        # A copy that may be written to: PyTorch warns of memory that may not.
        return torch.frombuffer(bytearray(data), dtype=dtype, count=count)


def _read_torchscript(archive: zipfile.ZipFile, description: str) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive by their dotted names."""
    module = _TorchScriptReader(archive, description).load()
    return dict(_tensors_of(module))


def _tensors_of(module: _Scripted, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a scripted module and of those within it, by their dotted names."""
    for name, value in module.items():
        if isinstance(value, _Scripted):
            yield from _tensors_of(value, f"{prefix}{name}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{name}", value


class _Candidate(NamedTuple):
    """A state dict in a file, and a prefix that its names may have.

    Attributes:
        matches: how many weights have the name of one of the model's behind the prefix.
        key: the keys that lead to it in the file.
        prefix: "module." for example.
        state: its tensors under the names that they have in the file.
    """

    matches: int
    key: str
    prefix: str
    state: dict[str, Tensor]

    @property
    def label(self) -> str:
        """What to call it in a warning."""
        if self.prefix:
            return f"{self.key}: {self.prefix}*"
        return self.key or "the outermost dict"


def _best_state_dict(path: Path, contents: Any, names: set[str]) -> dict[str, Tensor]:
    """The state dict in a file that fits a model with weights of these names best, without the prefix of its names."""
    candidates = []
    for key, state in _state_dicts(contents):
        matches_by_prefix = _matches_by_prefix(state, names)
        if not matches_by_prefix:
            matches_by_prefix[_usual_prefix(state)] = 0
        for prefix, matches in matches_by_prefix.items():
            candidates.append(_Candidate(matches, key, prefix, state))
    if not candidates:
        return {}
    most_matches = max(candidate.matches for candidate in candidates)
    best = [candidate for candidate in candidates if candidate.matches == most_matches]
    chosen = best[0]
    if len(best) > 1 and most_matches:
        labels = ", ".join(candidate.label for candidate in best)
        warnings.warn(
            f"{path} has several weights that fit: {labels}; {chosen.label} is taken (to take another, save "
            "it in a file of its own)",
            stacklevel=4,
        )
    foreign_names = [name for name in chosen.state if not name.startswith(chosen.prefix)]
    if foreign_names:
        warnings.warn(f"{path}: {_listed(foreign_names)} are no part of the model and are left out", stacklevel=4)
    return {
        name.removeprefix(chosen.prefix): value
        for name, value in chosen.state.items()
        if name.startswith(chosen.prefix)
    }


def _state_dicts(contents: Any, key: str = "", depth: int = 3) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The dicts with tensors in a file, each with the keys that lead to it; the usual wrappers first."""
    if not isinstance(contents, Mapping) or depth < 0:
        return
    names = [name for name in contents if isinstance(name, str)]
    wrappers = [name for name in WRAPPERS if name in names]
    for name in wrappers + [name for name in names if name not in WRAPPERS]:
        yield from _state_dicts(contents[name], f"{key}.{name}".strip("."), depth - 1)
    state = {}
    for name in names:
        if isinstance(contents[name], Tensor) and not name.endswith(CONSTANTS):
            state[name.replace("_orig_mod.", "")] = contents[name]  # torch.compile's prefix
    if state:
        yield key, state


def _matches_by_prefix(state: Mapping[str, Tensor], names: set[str]) -> Counter[str]:
    """For each prefix, how many weights have the name of one of the model's behind it."""
    matches: Counter[str] = Counter()
    for name in state:
        # "module.visual.proj" may be "module.visual.proj", "visual.proj" or "proj" of the model.
        components = name.split(".")
        for count in range(len(components)):
            if ".".join(components[count:]) in names:
                prefix = "".join(f"{component}." for component in components[:count])
                matches[prefix] += 1
    return matches


def _usual_prefix(state: Mapping[str, Tensor]) -> str:
    """What stands before the names of an image tower, where no name is one of the model's (they may be older ones)."""
    for name in state:
        for tower in ("visual", "vision_model"):
            prefix, dotted, _ = f".{name}".partition(f".{tower}.")
            if dotted:
                return f"{prefix}."[1:]
    return ""


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
    expected = model.state_dict()
    if hasattr(model, "text") and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # a number, or a vector with one
        if name in state and name in expected and state[name].numel() == 1:
            state[name] = state[name].reshape(expected[name].shape)
    # SigLIP's loss has a bias, which no method reads; files of other programs leave it out.
    if "logit_bias" in expected:
        state.setdefault("logit_bias", torch.zeros_like(expected["logit_bias"]))
    faults = _faults(state, expected)
    if faults:
        raise UserError(f"{source} does not fit: {'; '.join(faults)}. {_what_it_holds(state)}")
    model.load_state_dict(state)


def _faults(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What is wrong with weights for a model that has the ``expected`` ones, in clauses."""
    other_shapes, other_types = [], []
    for name, value in expected.items():
        if name not in state:
            continue
        if state[name].shape != value.shape:
            other_shapes.append(f"{name} {tuple(state[name].shape)} in place of {tuple(value.shape)}")
        if value.is_floating_point() and not state[name].is_floating_point():
            other_types.append(f"{name} ({state[name].dtype})")
    names_by_fault = {
        "lacks": [name for name in expected if name not in state],
        "has left over": [name for name in state if name not in expected],
        "has in another shape": other_shapes,
        "has not as floating-point numbers": other_types,
    }
    return [f"it {fault} {_listed(names)}" for fault, names in names_by_fault.items() if names]


def _listed(names: Sequence[str]) -> str:
    """The first four names, and how many more there are."""
    first_names = ", ".join(names[:4])
    if len(names) <= 4:
        return first_names
    return f"{first_names} and {len(names) - 4} more"


def _what_it_holds(state: Mapping[str, Tensor]) -> str:
    """A hint by the names of weights that do not fit."""
    modules = {name.partition(".")[0] for name in state}
    if modules & {"text_model", "vision_model"}:
        return "It is in Hugging Face's layout: put its config.json beside it and name the folder as model_name"
    if "visual_encoder" in modules:
        return "It is BLIP's: set clip_type to BLIP"
    if modules & {"conv1", "class_embedding", "patch_embed", "blocks"} or modules == {"visual"}:
        return "It holds an image tower only: a text tower is needed as well"
    return "Check that file and model belong together"


def check_finite(tower: nn.Module, label: str) -> None:
    """Raise a UserError where a tower has weights that are not finite."""
    # NaN would spread to every pixel, and argmax of NaN is a class like any other.
    for name, tensor in tower.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"the weights of {label} have NaN or infinite values in {name}; download them again")
