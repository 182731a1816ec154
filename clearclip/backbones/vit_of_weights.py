"""timm's ViTs of the sizes that the shapes of a state dict say, for checkpoints that come without a configuration."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
from timm.layers import Mlp, SwiGLUPacked
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as eva_names
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clearclip.backbones.checkpoints import load_weights
from clearclip.model_folders import read_json
from clearclip.utils.errors import UserError

#: Heads of the published image towers and text towers by their width, which no shape says.
IMAGE_HEADS = {768: 12, 1024: 16, 1152: 16, 1280: 16, 1536: 24}
TEXT_HEADS = {768: 12, 1024: 16, 1152: 16, 1280: 20, 1536: 24}


class Heads(NamedTuple):
    """Numbers of heads that a model's config.json names; None where it names none."""

    image: int | None
    text: int | None

    @classmethod
    def read(cls, path: Path | None) -> Heads:
        """From a config.json, flat (TIPSv2's own) or nested (transformers')."""
        config: dict[str, Any] = {}
        if path is not None:
            config = read_json(path)
        image = config.get("vision_config") or {}
        text = config.get("text_config") or {}
        return cls(
            image=image.get("num_attention_heads") or config.get("num_heads"),
            text=text.get("num_attention_heads") or config.get("text_num_heads"),
        )

    def of(self, tower: str, width: int) -> int:
        """The heads of the "image" or "text" tower.

        Raises:
            UserError: nothing says how many there are.
        """
        if tower == "image":
            heads, option = self.image or IMAGE_HEADS.get(width), "num_heads"
        else:
            heads, option = self.text or TEXT_HEADS.get(width), "text_num_heads"
        if not heads:
            raise UserError(
                f"no published {tower} tower has a width of {width}; say how many heads it has as {option} in a "
                "config.json beside the weights"
            )
        return heads


def from_dinov2_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tower's weights under timm's names, from DINOv2's (TIPSv2 has the same). In timm's no token before the patches
    has a position.
    """
    if "register_tokens" not in state:
        return dict(state)
    weights = renamed(state, {".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."})
    weights["reg_token"] = weights.pop("register_tokens")
    weights["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    weights["pos_embed"] = state["pos_embed"][:, 1:]
    weights.pop("mask_token", None)  # for training only
    return weights


def renamed(state: Mapping[str, Tensor], replacements: Mapping[str, str]) -> dict[str, Tensor]:
    """The same weights with texts in their names replaced, one after the other."""
    weights = {}
    for name, value in state.items():
        for old_text, new_text in replacements.items():
            name = name.replace(old_text, new_text)
        weights[name] = value
    return weights


def plain_vit(state: dict[str, Tensor], heads: Heads, label: str) -> VisionTransformer:
    """A ``VisionTransformer`` with these weights, under timm's names.

    Raises:
        UserError: weights that are none of such a tower; names them.
    """
    lacking = [name for name in ("pos_embed", "reg_token", "patch_embed.proj.weight") if name not in state]
    if lacking:
        raise UserError(f"{label} has no {' and no '.join(lacking)}; check that it is the image tower's file")
    patch, width = state["patch_embed.proj.weight"].shape[-1], state["pos_embed"].shape[-1]
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    # SwiGLU's first layer gives twice what its second one takes.
    is_gated = hidden != state["blocks.0.mlp.fc2.weight"].shape[1]
    ffn: dict[str, Any] = {"mlp_layer": Mlp, "act_layer": nn.GELU}
    if is_gated:
        ffn = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    # A value with which timm makes a LayerScale at all; the weights come afterwards.
    layer_scale = 1.0 if "blocks.0.ls1.gamma" in state else None
    vit = VisionTransformer(
        img_size=patch * math.isqrt(state["pos_embed"].shape[1]),
        patch_size=patch,
        embed_dim=width,
        depth=number_of_blocks(state, "blocks."),
        num_heads=heads.of("image", width),
        mlp_ratio=(hidden + 0.5) / width,  # timm rounds the product down
        **ffn,
        init_values=layer_scale,
        reg_tokens=state["reg_token"].shape[1],
        no_embed_class=True,
        num_classes=0,
        final_norm="norm.weight" in state,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        weight_init="skip",
    )
    load_weights(vit, state, label)
    warn_of_untrained_scale(vit.blocks[-1], label)
    return vit


def dinov3_vit(state: dict[str, Tensor], heads: Heads, label: str) -> Eva:
    """DINOv3's tower with these weights, under its own names or timm's.

    Raises:
        UserError: weights that are none of such a tower; names them.
    """
    width = state["cls_token"].shape[-1]
    vit = timm.create_model(
        "vit_large_patch16_dinov3_qkvb",  # the one with biases of q and v, which the release has
        embed_dim=width,
        depth=number_of_blocks(state, "blocks."),
        num_heads=heads.of("image", width),
        mlp_ratio=(state["blocks.0.mlp.fc1.weight"].shape[0] + 0.5) / width,
        num_classes=0,
        global_pool="token",
    )
    load_weights(vit, eva_names(dict(state), vit), label)
    # The release rounded its periods to bfloat16, timm computes them anew.
    if "rope_embed.periods" in state:
        vit.rope.periods.copy_(state["rope_embed.periods"])
    return vit


def number_of_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks there are under a prefix."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})


def warn_of_untrained_scale(block: nn.Module, label: str) -> None:
    """Say where LayerScale makes what the last block's attention adds so small that the final norm returns its bias."""
    if isinstance(block.ls1, nn.Identity) or block.ls1.gamma.abs().max() > 1e-4:
        return
    warnings.warn(
        f"{label}: the last block's LayerScale is not trained; ClearCLIP's patches all look alike", stacklevel=4
    )
