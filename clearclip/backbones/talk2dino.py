"""Talk2DINO (ICCV 2025): DINOv2 or DINOv3 as it is, and CLIP's text brought to its patches by a small network."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.backbones.checkpoints import load_weights, read_checkpoint
from clearclip.backbones.dino_tower import DINOImageEncoder
from clearclip.backbones.vit_of_weights import Heads, dinov3_vit, from_dinov2_names, plain_vit, renamed


class Projection(nn.Module):
    """From CLIP's text to DINO's patches: linear, tanh, linear.

    Args:
        text, hidden, image: the widths.
    """

    def __init__(self, text: int, hidden: int, image: int):
        super().__init__()
        self.linear_layer = nn.Linear(text, hidden)
        self.hidden_layers = nn.ModuleList([nn.Linear(hidden, image)])

    def combine(self, embeddings: Tensor) -> Tensor:
        """Features (words, E) of the prompts of words (words, templates, width), averaged before they are projected.

        Neither prompts nor their mean are normalised before: the network is not linear.
        """
        hidden = self.linear_layer(embeddings.mean(dim=1)).tanh()
        return F.normalize(self.hidden_layers[0](hidden), dim=-1)


def load_talk2dino(files: dict[str, Path], label: str) -> tuple[DINOImageEncoder, Projection]:
    """The image tower, and the projection of text.

    Raises:
        UserError: a file that cannot be read, or weights that do not fit.
    """
    state = read_checkpoint([files["image"]])
    heads = Heads.read(files.get("config"))
    vit: nn.Module
    # DINOv3 has rotary positions in place of a table.
    if "pos_embed" in state:
        vit = plain_vit(from_dinov2_names(state), heads, label)
    else:
        vit = dinov3_vit(state, heads, label)
    # The second layer has either name in files of this network.
    weights = renamed(read_checkpoint([files["projection"]]), {"linear_layer2.": "hidden_layers.0."})
    hidden, text = weights["linear_layer.weight"].shape
    projection = Projection(text, hidden, len(weights["hidden_layers.0.weight"]))
    load_weights(projection, weights, str(files["projection"]))
    return DINOImageEncoder(vit), projection
