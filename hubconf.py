"""ClearCLIP through torch.hub: ``torch.hub.load("path/of/a/clone", "clearclip", source="local")``."""

from typing import Any

# What torch.hub looks for before it loads anything; the mm packages are not needed for this.
dependencies = [
    "torch",
    "torchvision",
    "open_clip",
    "numpy",
    "PIL",
    "cv2",
    "safetensors",
    "ftfy",
    "regex",
    "matplotlib",
]


def clearclip(model_name: str = "ViT-B-16", pretrained: str | None = "openai", **options: Any):
    """A model that segments images by words.

        model = torch.hub.load("path/of/a/clone", "clearclip", source="local")
        model.segment("photo.jpg", ["sky", "tree", "grass"]).save("result.png")

    Args:
        model_name, pretrained, **options: as ``clearclip.ClearCLIP.from_pretrained`` takes them.
    """
    from clearclip import ClearCLIP

    return ClearCLIP.from_pretrained(model_name, pretrained, **options)


def miniature(**options: Any):
    """The small model of drawn scenes that comes with the repository; needs no download."""
    from clearclip import ClearCLIP

    return ClearCLIP.from_pretrained("miniature", **options)
