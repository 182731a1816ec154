"""The models of an analysis, by their names on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearclip.checkpoints import CLIP_TYPES, DEFAULT
from clearclip.errors import UserError
from clearclip.model import ClearCLIP

FAMILIES = {name.lower(): name for name in CLIP_TYPES if name != "Miniature"}
HELP = (
    "miniature; CLIP, OpenCLIP, MetaCLIP or BLIP with a size (CLIP:ViT-L/14); DINO; or an OpenCLIP model and its tag "
    "or checkpoint file (ViT-B-32:openai). A third part is a checkpoint file or folder (BLIP:ViT-B/16:model.pth); "
    "'random' in its place means random weights"
)


@dataclass(frozen=True)
class ModelName:
    """A model that was asked for.

    Attributes:
        label: for figures.
        options: for :meth:`ClearCLIP.from_pretrained`.
    """

    label: str
    options: dict[str, Any]

    def load(self, **settings: Any) -> ClearCLIP:
        """The model.

        Args:
            settings: more for :meth:`ClearCLIP.from_pretrained`.
        """
        return ClearCLIP.from_pretrained(**self.options, **settings)


def parse_model(name: str) -> ModelName:
    """Read a model's name, see :data:`HELP`.

    Raises:
        UserError: it is of no such form.
    """
    if name.lower() == "miniature":
        return ModelName("miniature", dict(model_name="miniature"))
    first, _, rest = name.partition(":")
    if first.lower() in FAMILIES:
        family = FAMILIES[first.lower()]
        vit_type, _, weights = rest.partition(":")
        if vit_type and not vit_type.startswith("ViT-"):
            vit_type, weights = "", rest
        vit_type = vit_type or "ViT-B/16"
        label = f"{family} {vit_type}"
        return ModelName(
            _label(label, weights), dict(clip_type=family, vit_type=vit_type, pretrained=_weights(weights))
        )
    if first in ("local-dir", "hf-hub"):
        return ModelName(rest.rstrip("/").rsplit("/", 1)[-1] or name, dict(model_name=name))
    if not first or not rest:
        raise UserError(f"model {name!r} has no weights; write it as one of these: {HELP}")
    return ModelName(f"{first} ({rest.rsplit('/', 1)[-1]})", dict(model_name=first, pretrained=_weights(rest)))


def _weights(text: str) -> str | None:
    return None if text == "random" else text or DEFAULT


def _label(label: str, weights: str) -> str:
    return f"{label} ({weights.rsplit('/', 1)[-1]})" if weights else label
