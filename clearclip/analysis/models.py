"""The models of an analysis, by their names on the command line."""

from __future__ import annotations

from clearclip.checkpoints import CLIP_TYPES
from clearclip.errors import UserError
from clearclip.settings import ModelSettings

HELP = (
    "miniature; CLIP, OpenCLIP, MetaCLIP or BLIP with a size (CLIP:ViT-L/14); DINO; or an OpenCLIP model and its tag "
    "or checkpoint file (ViT-B-32:openai). A third part is a checkpoint file or folder (BLIP:ViT-B/16:model.pth); "
    "'random' in its place means random weights"
)


def parse_model(name: str) -> dict[str, str]:
    """A model's name, see :data:`HELP`, as options of :class:`~clearclip.settings.ModelSettings`.

    Raises:
        UserError: it is of no such form.
    """
    first, _, rest = name.partition(":")
    if name.lower() == "miniature" or first in ("local-dir", "hf-hub"):
        return {"model_name": name if rest else "miniature"}
    family = next((known for known in CLIP_TYPES if known.lower() == first.lower()), None)
    vit_type, _, weights = rest.partition(":") if family and rest.startswith("ViT-") else ("ViT-B/16", "", rest)
    if not family and not (first and weights):
        raise UserError(f"model {name!r} has no weights; write it as one of these: {HELP}")
    options = {"clip_type": family, "vit_type": vit_type} if family else {"model_name": first}
    return {**options, "pretrained": weights} if weights else options


def label_of(settings: ModelSettings) -> str:
    """A model's name for figures: "CLIP ViT-B/16", "ViT-B-32 (openai)"."""
    known = settings.identity()
    name, weights = (str(known[key] or "").rstrip("/").rsplit("/", 1)[-1] for key in ("model_name", "pretrained"))
    name = name or f"{known['clip_type']} {known['vit_type']}"
    return f"{name} ({weights})" if weights else name
