"""BLIP's weights: an original ``.pth`` checkpoint, such as the published rows', or Hugging Face's layout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearclip.backbones.checkpoints import read_checkpoint
from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch, fetch_url
from clearclip.weights import RANDOM, Weights

#: Where the authors publish their checkpoints.
BLIP_ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
TOKENIZER = "google-bert/bert-base-uncased"
#: Width and number of blocks of the image towers.
IMAGE_TOWERS = {"BLIP ViT-B/16": (768, 12), "BLIP ViT-L/16": (1024, 24)}
#: Names of the original layout, by which its state dict is found in a file.
ANCHORS = ("visual_encoder.cls_token", "visual_encoder.pos_embed", "text_encoder.embeddings.position_embeddings.weight")
#: Parts of the original names of weights → transformers' names.
RENAMES = {
    r"^visual_encoder\.cls_token": "vision_model.embeddings.class_embedding",
    r"^visual_encoder\.pos_embed": "vision_model.embeddings.position_embedding",
    r"^visual_encoder\.patch_embed\.proj": "vision_model.embeddings.patch_embedding",
    r"^visual_encoder\.norm": "vision_model.post_layernorm",
    r"^visual_encoder\.blocks": "vision_model.encoder.layers",
    r"(^vision_model.*)\.norm([12])\.": r"\1.layer_norm\2.",
    r"(^vision_model.*)\.attn\.qkv\.": r"\1.self_attn.qkv.",
    r"(^vision_model.*)\.attn\.proj\.": r"\1.self_attn.projection.",
}
# What only training needs: momentum copies, queues of features, the temperature, the captioning decoder.
# position_ids is a constant that old versions of transformers stored.
TRAINING_ONLY = re.compile(r"^\w+_m\.|^text_decoder\.|^(\w+_queue|queue_ptr|ptr_queue|temp)$|\.position_ids$")


def load_retrieval_model(weights: Weights) -> tuple[nn.Module, str]:
    """A ``transformers`` ``BlipForImageTextRetrieval`` in fp32, and where its tokenizer is.

    Arguments and errors as for :func:`clearclip.backbones.blip.load_blip`.
    """
    try:
        from transformers import BlipForImageTextRetrieval
    except ImportError as error:
        raise UserError("BLIP needs the package transformers: pip install transformers") from error
    source, path = weights.pretrained, Path(weights.pretrained)
    if source == RANDOM:
        return BlipForImageTextRetrieval(configuration(*IMAGE_TOWERS[weights.model_name])), TOKENIZER
    if source == weights.tag:
        path = fetch_url(f"{BLIP_ADDRESS}{source}.pth", "download it elsewhere and give the file as pretrained")
    if path.is_file():
        model = _load_original(path, weights.model_name)
        # A tokenizer beside the weights is taken, so that no network is needed.
        has_vocabulary = any((path.parent / name).is_file() for name in ("vocab.txt", "tokenizer.json"))
        if has_vocabulary:
            return model, str(path.parent)
        return model, TOKENIZER
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise UserError(f"the BLIP checkpoint {source} does not exist; check its path")
    return _load_folder(source, weights.model_name), source


def configuration(width: int, layers: int, image_size: int = 384):
    """transformers' configuration of a retrieval model with such an image tower; its defaults are not BLIP's."""
    from transformers import BlipConfig

    vision: dict[str, Any] = dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers)
    vision |= dict(image_size=image_size, num_attention_heads=width // 64, layer_norm_eps=1e-6, initializer_range=0.02)
    text = dict(num_attention_heads=12, encoder_hidden_size=width)
    return BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=256)


def _load_original(path: Path, model_name: str) -> nn.Module:
    """A model from an original checkpoint, a state dict (under "model"), loaded as data and never as code."""
    from transformers import BlipForImageTextRetrieval

    state = rename(read_checkpoint([path], ANCHORS))
    positions = state.get("vision_model.embeddings.position_embedding", torch.zeros(1, 577, 0))
    _check_width(str(path), model_name, positions.shape[2])
    # One position is the class token's; patches have 16 pixels a side in both sizes.
    side = 16 * round((positions.shape[1] - 1) ** 0.5)
    model = BlipForImageTextRetrieval(configuration(*IMAGE_TOWERS[model_name], side))
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit BLIP: {str(error)[:400]}") from error
    _check_complete(str(path), result.missing_keys, result.unexpected_keys)
    return model


def _load_folder(source: str, model_name: str) -> nn.Module:
    """A model in Hugging Face's layout: a local folder, or a repository on the hub."""
    from transformers import BlipForImageTextRetrieval

    folder = Path(source)
    if not folder.is_dir():
        remedy = "download that repository elsewhere and give its folder as pretrained, or an original .pth"
        folder = fetch(source, "config.json", remedy=remedy).parent
        fetch(source, "model.safetensors", "pytorch_model.bin", remedy=remedy)
    elif not (folder / "config.json").is_file():
        raise UserError(f"the folder {source} has no config.json, which a BLIP model in Hugging Face's layout needs")
    options = dict(output_loading_info=True, local_files_only=True)
    try:
        model, report = BlipForImageTextRetrieval.from_pretrained(folder, **options)
    except Exception as error:  # whatever a damaged file raises
        raise UserError(f"the BLIP model in {source} cannot be loaded: {str(error)[:400]}") from error
    _check_width(source, model_name, model.config.vision_config.hidden_size)
    _check_complete(source, report["missing_keys"], report["unexpected_keys"])
    return model.float()


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An original state dict under transformers' names, without what only training needs."""
    renamed = {}
    for name, tensor in state.items():
        if not TRAINING_ONLY.search(name):
            for pattern, replacement in RENAMES.items():
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed


def _check_width(source: str, model_name: str, width: int) -> None:
    for name, (known_width, _) in IMAGE_TOWERS.items():
        if width == known_width and name != model_name:
            vit_type = name.removeprefix("BLIP ")
            raise UserError(f"{source} is a {name}, not a {model_name}; set vit_type='{vit_type}'")


def _check_complete(source: str, missing_names: Iterable[str], unexpected_names: Iterable[str]) -> None:
    for fault, names in (("lacks", missing_names), ("has left over", unexpected_names)):
        names = sorted(name for name in names if not TRAINING_ONLY.search(name))
        if names:
            raise UserError(
                f"{source} is not a BLIP retrieval or pre-training checkpoint: it {fault} {', '.join(names[:5])} "
                f"({len(names)} weights); choose one with an image-text contrastive branch, such as model_base_14M.pth"
            )
