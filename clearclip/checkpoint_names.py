"""The checkpoints of the published tables by their names there, as plain data: no PyTorch is needed to list them."""

from clearclip.miniature import DIRECTORY as MINIATURE

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
    ("Miniature", "Miniature/8"): (f"local-dir:{MINIATURE}", None),
}
CLIP_TYPES = ("CLIP", "OpenCLIP", "MetaCLIP", "BLIP", "DINO", "Miniature")
VIT_TYPES = ("ViT-B/16", "ViT-L/14", "ViT-L/16", "Miniature/8")
