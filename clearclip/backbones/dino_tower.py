"""DINO and DINOv2 (self-supervised): towers to compare CLIP's statistics with, and second encoders beside CLIP. They
know no words.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from clearclip.backbones.casting import prepare
from clearclip.backbones.checkpoints import read_checkpoint, reason
from clearclip.backbones.dense_encoder import UNCHANGED, DenseEncoder
from clearclip.backbones.timm_tower import TimmEncoder, as_visual
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch
from clearclip.utils.precisions import precision_of_weights
from clearclip.utils.validators import did_you_mean
from clearclip.weights import RANDOM, Weights

#: Second encoders: our name of each → timm's. DINO's have patches of 8 or 16; "reg" have four registers.
SECOND_ENCODERS = {
    "dino-vits8": "vit_small_patch8_224.dino",
    "dino-vits16": "vit_small_patch16_224.dino",
    "dino-vitb8": "vit_base_patch8_224.dino",
    "dino-vitb16": "vit_base_patch16_224.dino",
    "dinov2-vits14": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-vitl14": "vit_large_patch14_dinov2.lvd142m",
    "dinov2-vits14-reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2-vitb14-reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2-vitl14-reg": "vit_large_patch14_reg4_dinov2.lvd142m",
}
#: Two blocks with random weights, the same every time: it compares colours and textures. For the bundled miniature.
UNTRAINED = "untrained-vit4"
UNTRAINED_SIZES = {"patch_size": 4, "img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3}
#: Names of a ViT's weights, by which its state dict is found in a file.
_ANCHORS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
#: Held while random weights are drawn, from the one generator of all threads.
_SEED_LOCK = threading.Lock()


def load_dino(
    weights: Weights, device: torch.device, precision: str, **architecture: Any
) -> tuple[DINOImageEncoder, tuple[float, ...], tuple[float, ...]]:
    """Load DINO or DINOv2.

    Args:
        weights: ``tag`` is its name in timm; ``pretrained`` is the same (then from the hub), a checkpoint file, or
            "random".
        device: where to compute.
        precision: "fp32", "fp16" or "bf16"; LayerNorm stays in fp32.
        **architecture: what differs from timm's model.

    Returns:
        Image encoder, and its mean and std of 0..255 RGB.

    Raises:
        UserError: weights that cannot be fetched, read, or are not finite.
    """
    is_random = weights.pretrained == RANDOM
    options = dict(architecture)
    if not is_random:
        # timm takes the weights that it finds in the configuration, and reads no file itself.
        state = read_checkpoint([_dino_checkpoint(weights)], _ANCHORS)
        options["pretrained_cfg_overlay"] = {"state_dict": state}
    try:
        with _SEED_LOCK, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # random weights are the same in every run
            vit = timm.create_model(weights.tag, pretrained=not is_random, **options)
    except Exception as error:  # whatever weights of another model raise
        source = weights.pretrained
        raise UserError(f"{source} cannot be loaded as {weights.model_name}: {reason(error)}") from error
    mean = tuple(255 * value for value in vit.pretrained_cfg["mean"])
    std = tuple(255 * value for value in vit.pretrained_cfg["std"])
    return prepare(DINOImageEncoder(vit), device, precision_of_weights(precision), weights), mean, std


def _dino_checkpoint(weights: Weights) -> Path:
    """The file that holds these weights, fetched where they are the published ones."""
    if weights.pretrained == weights.tag:
        remedy = f"download the weights of {weights.model_name} elsewhere and give the file instead"
        return fetch(f"timm/{weights.tag}", "model.safetensors", "pytorch_model.bin", remedy=remedy)
    path = Path(weights.pretrained)
    if not path.is_file():
        raise UserError(f"the checkpoint {path} for {weights.model_name} does not exist; check its path")
    return path


def load_second_encoder(name: str, weights: str | None, device: torch.device, precision: str) -> SecondEncoder:
    """Load a second encoder.

    Args:
        name: a key of :data:`SECOND_ENCODERS`, or :data:`UNTRAINED`.
        weights: a checkpoint file, "random", or None for the published ones, from the hub.
        device, precision: as for :func:`load_dino`.

    Raises:
        UserError: an unknown name, or weights that cannot be fetched, read, or are not finite.
    """
    if name == UNTRAINED:
        untrained = Weights(name, weights or RANDOM, tag=SECOND_ENCODERS["dino-vits16"])
        return SecondEncoder(*load_dino(untrained, device, precision, **UNTRAINED_SIZES)).to(device)
    if name not in SECOND_ENCODERS:
        raise UserError(f"unknown guide {name!r}; {did_you_mean(name, (*SECOND_ENCODERS, UNTRAINED))}")
    tag = SECOND_ENCODERS[name]
    return SecondEncoder(*load_dino(Weights(name, weights or tag, tag=tag), device, precision)).to(device)


class SecondEncoder(nn.Module):
    """Patch features of another image encoder, beside CLIP.

    Args:
        encoder: the image tower.
        mean, std: its normalisation of 0..255 RGB.
    """

    def __init__(self, encoder: DenseEncoder, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.encoder = encoder
        self.patch_size = encoder.patch_size
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) / 255, persistent=False)

    def forward(self, images: Tensor, features: str = "output") -> Tensor:
        """Features of patches.

        Args:
            images: (B, 3, H, W) float32, 0..1 RGB.
            features: "output", those after the last block and the final norm; or "values", the values of the last
                block's attention, its heads side by side.

        Returns:
            (B, H // patch, W // patch, C)
        """
        images = (images - self.mean) / self.std
        if features == "values":
            return self._last_values(images)
        return self.encoder(images, [UNCHANGED])[0]

    def _last_values(self, images: Tensor) -> Tensor:
        encoder = self.encoder
        grid = encoder.grid(images)
        tokens = encoder.tokens(images, UNCHANGED.position_resize)
        for index in range(len(encoder.blocks) - 1):
            tokens = encoder.run_block(index, tokens, grid)
        block = encoder.parts(grid)[-1]
        values = block.project(block.ln_1(tokens), "v").transpose(1, 2).flatten(2)
        return values[:, encoder.num_prefix_tokens :].unflatten(1, grid)


class DINOImageEncoder(TimmEncoder):
    """Dense features of timm's ``VisionTransformer`` of DINO or DINOv2.

    Args:
        vit: the image tower.
    """

    def __init__(self, vit: nn.Module):
        super().__init__(as_visual(vit))

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        # DINOv2's models with registers were made to resize positions by size.
        if self.visual.trunk.reg_token is not None:
            position_resize = "size"
        return super().tokens(images, position_resize)
