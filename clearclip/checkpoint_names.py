"""The checkpoints of the published tables by their names there, as plain data: no PyTorch is needed to list them."""

from clearclip import miniature

#: (clip_type, vit_type) → the model's name in OpenCLIP (or here) and the tag of its published weights.
CHECKPOINTS = {
    ("CLIP", "ViT-B/16"): ("ViT-B-16", "openai"),
    ("CLIP", "ViT-L/14"): ("ViT-L-14", "openai"),
    ("OpenCLIP", "ViT-B/16"): ("ViT-B-16", "laion2b_s34b_b88k"),
    ("OpenCLIP", "ViT-L/14"): ("ViT-L-14", "laion2b_s32b_b82k"),
    ("MetaCLIP", "ViT-B/16"): ("ViT-B-16", "metaclip_fullcc"),
    ("MetaCLIP", "ViT-L/14"): ("ViT-L-14", "metaclip_fullcc"),
    # The tables call BLIP's ViT-L/16 ViT-L/14.
    ("BLIP", "ViT-B/16"): ("BLIP ViT-B/16", "model_base_14M"),
    ("BLIP", "ViT-L/14"): ("BLIP ViT-L/16", "model_large"),
    ("BLIP", "ViT-L/16"): ("BLIP ViT-L/16", "model_large"),
    ("DINO", "ViT-B/16"): ("DINO ViT-B/16", "vit_base_patch16_224.dino"),
    ("Miniature", "Miniature/8"): (f"local-dir:{miniature.DIRECTORY}", None),
}
CLIP_TYPES = ("CLIP", "OpenCLIP", "MetaCLIP", "BLIP", "DINO", "Miniature")
VIT_TYPES = ("ViT-B/16", "ViT-L/14", "ViT-L/16", "Miniature/8")
#: clip_type → the vit_type that is meant where none is named: the first one above.
DEFAULT_VIT_TYPES = dict(reversed(CHECKPOINTS))

# What is said of a model that comes with the package, so that no other code has to ask whether it is that model.
#: Its name as a ``model_name`` → the (clip_type, vit_type) that it stands for.
CHECKPOINT_BY_MODEL_NAME = {miniature.NAME: ("Miniature", "Miniature/8")}
#: (model's name in OpenCLIP, tag) → its name.
BUNDLED_NAMES = {CHECKPOINTS[row]: name for name, row in CHECKPOINT_BY_MODEL_NAME.items()}
#: Its name → the SHA-256 of its weights, the options of methods that differ for its tower.
BUNDLED_SHA256 = {miniature.NAME: miniature.SHA256}
BUNDLED_METHOD_OPTIONS = {miniature.NAME: miniature.METHOD_OPTIONS}
#: clip_type → options of a model that differ from the defaults.
OPTIONS_BY_CLIP_TYPE = {"Miniature": miniature.MODEL_OPTIONS}


def named_checkpoint(clip_type: str | None, vit_type: str | None, model_name: object) -> tuple[str, str] | None:
    """The row of :data:`CHECKPOINTS` that the options of these names mean; None where another model is named."""
    if model_name is None:
        clip_type = clip_type or "CLIP"
        return clip_type, vit_type or DEFAULT_VIT_TYPES[clip_type]
    return CHECKPOINT_BY_MODEL_NAME.get(str(model_name))
