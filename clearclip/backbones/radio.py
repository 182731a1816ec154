"""C-RADIO v3 and v4: an image tower distilled from several teachers; SigLIP 2's adaptor brings its patches to text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.backbones.checkpoints import load_weights, read_checkpoint, read_file
from clearclip.backbones.timm_tower import TimmEncoder, as_visual
from clearclip.backbones.vit_of_weights import Heads, number_of_blocks, plain_vit
from clearclip.model_folders import read_json
from clearclip.utils.errors import UserError


class RadioEncoder(TimmEncoder):
    """Dense features of C-RADIO: the summary adaptor, made for a class token, applied to every patch.

    The feature adaptor, made for patches, leads to SigLIP 2's patches before its pool, which no text is compared with.
    """

    def __init__(self, visual: nn.Module):
        super().__init__(visual)
        self.has_class_token = False  # it has one for each teacher, and the first is not always SigLIP 2's

    def resized_positions(self, embedding: Tensor, grid: tuple[int, int], how: str) -> Tensor:
        """The table, resized to a square of the longer side, of which the top left is taken; at every size."""
        table = embedding.T.unflatten(1, self.grid_size)[None].float()
        side = max(grid)
        square = F.interpolate(table, size=(side, side), mode="bilinear", align_corners=False)
        return square[0, :, : grid[0], : grid[1]].flatten(1).T.to(embedding.dtype)


class Adaptor(nn.Module):
    """The MLP that leads to the space of one teacher, of the sizes that the shapes of its weights say."""

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        hidden, width = state["fc1.weight"].shape
        self.fc1 = nn.Linear(width, hidden)
        blocks = range(number_of_blocks(state, "blocks."))
        self.blocks = nn.ModuleList(_adaptor_layer(hidden, hidden) for _ in blocks)
        self.final = _adaptor_layer(hidden, len(state["final.2.weight"]))

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, D) to (…, E)."""
        tokens = self.fc1(tokens)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.final(tokens)


def _adaptor_layer(inputs: int, outputs: int) -> nn.Sequential:
    """Norm, activation and a linear layer, under the names of the release: "0", "1" and "2"."""
    return nn.Sequential(nn.LayerNorm(inputs), nn.GELU(), nn.Linear(inputs, outputs))


class SigLIPText(nn.Module):
    """transformers' text tower of SigLIP 2. Padding takes part: without a mask, as it was trained."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, E) of (B, 64) int64 tokens."""
        return self.model(input_ids=tokens).pooler_output


def load_radio(files: dict[str, Path], label: str) -> tuple[RadioEncoder, SigLIPText]:
    """The image tower with SigLIP 2's summary adaptor, and SigLIP 2's text tower.

    Raises:
        UserError: a file that cannot be read or holds more than data, weights that do not fit, or no such adaptor.
    """
    # An argparse namespace is beside the weights, as data; a file with anything else is refused.
    contents = read_file(files["adaptors"])
    state = contents.get("state_dict_ema") or contents.get("state_dict") or {}
    adaptor = summary_adaptor(state, contents.get("args"), files["adaptors"])
    # The same tower in full precision, where it is there: the .pth.tar has halves.
    if "image" in files:
        state = read_checkpoint([files["image"]])
    vit = plain_vit(from_radio_names(state), Heads.read(files.get("config")), label)
    text = _siglip_text(files, label)
    encoder = RadioEncoder(as_visual(vit, adaptor))
    if encoder.dim != text.model.config.projection_size:
        raise UserError(
            f"the adaptor in {files['adaptors']} leads to {encoder.dim} numbers, and the text tower in "
            f"{files['text'].parent} gives {text.model.config.projection_size}; get the other SigLIP 2"
        )
    return encoder, text


def from_radio_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower under timm's names."""
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("radio_model.model.").removeprefix("base_model.")
        if name.startswith("blocks."):
            # LayerScale is called so in the release for the hub's sake, which renames a gamma.
            renamed[name.replace(".grandma", ".gamma")] = value
        elif name == "patch_generator.embedder.weight":
            patch = round((value.shape[1] / 3) ** 0.5)
            renamed["patch_embed.proj.weight"] = value.unflatten(1, (3, patch, patch))
            renamed["patch_embed.proj.bias"] = value.new_zeros(len(value))
        elif name == "patch_generator.pos_embed":
            renamed["pos_embed"] = value
        elif name == "patch_generator.cls_token.token":
            renamed |= {"cls_token": value[None, :1], "reg_token": value[None, 1:]}
    return renamed


def summary_adaptor(state: Mapping[str, Tensor], args: Any, path: Path) -> Adaptor:
    """SigLIP 2's adaptor of class tokens.

    Args:
        state: with ``_heads.NAME.``, or ``_heads.NUMBER.`` of a teacher.
        args: the training's options, whose ``teachers`` have names.
        path: the file, for errors.

    Raises:
        UserError: there is none, or it is in a form that is not known here.
    """
    teachers = getattr(args, "teachers", None) or []
    keys = {name.split(".")[1] for name in state if name.startswith("_heads.")}
    teacher_by_key = {}
    for key in sorted(keys):
        teacher_by_key[key] = key
        # A number is the place of a teacher among the options.
        if key.isdigit() and int(key) < len(teachers):
            teacher_by_key[key] = str(dict(teachers[int(key)]).get("name"))
    siglip_keys = [key for key, teacher in teacher_by_key.items() if teacher.startswith("siglip2")]
    if not siglip_keys:
        adaptors = "no adaptor of class tokens"
        if teacher_by_key:
            adaptors = f"the adaptors {', '.join(teacher_by_key.values())}"
        raise UserError(
            f"{path} has {adaptors}; words need SigLIP 2's (the one of patches is not comparable with text)"
        )
    prefix = f"_heads.{siglip_keys[0]}."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if any("parametrizations" in name for name in weights):
        raise UserError(f"{path} has a spectral parametrisation, which is not known here; get the published file")
    adaptor = Adaptor(weights)
    load_weights(adaptor, weights, str(path))
    return adaptor


def _siglip_text(files: dict[str, Path], label: str) -> SigLIPText:
    try:
        from transformers import SiglipTextConfig, SiglipTextModel
    except ImportError as error:
        raise UserError(f"{label} needs the package transformers: pip install transformers") from error
    config = read_json(files["text"]).get("text_config") or {}
    model = SiglipTextModel(SiglipTextConfig(**config))
    # The repository has the image tower as well. Some versions of transformers have the prefix themselves.
    state = read_checkpoint([files["text weights"]])
    has_prefix = any(name.startswith("text_model.") for name in model.state_dict())
    text_state = {}
    for name, value in state.items():
        if name.startswith("text_model."):
            text_name = name if has_prefix else name.removeprefix("text_model.")
            text_state[text_name] = value
    load_weights(model, text_state, str(files["text weights"]))
    return SigLIPText(model)
