"""BLIP's weights: an original ``.pth`` checkpoint, such as the published rows', or Hugging Face's layout."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from clearclip.checkpoints import RANDOM, Weights
from clearclip.errors import UserError
from clearclip.hub import fetch, fetch_url

#: Where the authors publish their checkpoints.
PUBLISHED = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
TOKENIZER = "google-bert/bert-base-uncased"

#: Width and number of blocks of the image towers.
TOWERS = {"BLIP ViT-B/16": (768, 12), "BLIP ViT-L/16": (1024, 24)}

# Original names of weights → transformers' names.
RENAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
        (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
        (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
        (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
        (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
        (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
        (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
        (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    )
]
# What only training needs: momentum copies, queues of features, the temperature, the captioning decoder.
# position_ids is a constant that old versions of transformers stored.
TRAINING_ONLY = re.compile(
    r"^((visual_encoder|text_encoder|vision_proj|text_proj)_m|text_decoder)\."
    r"|^(image_queue|text_queue|idx_queue|queue_ptr|ptr_queue|temp)$"
    r"|\.position_ids$"
)


def load_retrieval_model(weights: Weights) -> tuple[nn.Module, str]:
    """A ``transformers`` ``BlipForImageTextRetrieval`` in fp32, and where its tokenizer is.

    Arguments and errors as for :func:`clearclip.encoders.blip.load_blip`.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError("BLIP needs the package transformers: pip install transformers") from error
    source = weights.pretrained
    if source == RANDOM:
        return transformers.BlipForImageTextRetrieval(configuration(*TOWERS[weights.model_name])).float(), TOKENIZER
    if source == weights.tag:
        remedy = "download it elsewhere and give the file as pretrained"
        model, tokenizer = _load_original(str(fetch_url(f"{PUBLISHED}{source}.pth", remedy))), TOKENIZER
    elif os.path.isfile(source):
        folder = str(Path(source).parent)
        has_tokenizer = any((Path(folder) / name).is_file() for name in ("vocab.txt", "tokenizer.json"))
        model, tokenizer = _load_original(source), folder if has_tokenizer else TOKENIZER
    elif Path(source).suffix in (".pth", ".pt", ".bin", ".safetensors"):
        raise UserError(f"the BLIP checkpoint {source} does not exist; check its path")
    else:
        model, tokenizer = _load_folder(source), source
    _check(model, weights)
    return model.float(), tokenizer


def _check(model: nn.Module, weights: Weights) -> None:
    width = model.config.vision_config.hidden_size
    for name, (known_width, _) in TOWERS.items():
        if width == known_width and name != weights.model_name:
            vit_type = name.removeprefix("BLIP ")
            raise UserError(f"{weights.pretrained} is a {name}, not a {weights.model_name}; set vit_type='{vit_type}'")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"the BLIP weights of {weights.pretrained} have NaN or infinite values in {name}; download them again"
            )


def configuration(width: int, layers: int, **changes):
    """transformers' configuration of a retrieval model; its defaults differ from the published ones.

    Args:
        width, layers: of the image tower.
        changes: ``text``, ``vision`` (dicts) and ``embed_dim`` override what the published models have.
    """
    from transformers import BlipConfig

    text = dict(num_attention_heads=12, encoder_hidden_size=width) | changes.get("text", {})
    # transformers' 1e-5 as eps and 1e-10 as initialisation are not BLIP's.
    vision = dict(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        layer_norm_eps=1e-6,
        initializer_range=0.02,
        image_size=384,
    ) | changes.get("vision", {})
    return BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=changes.get("embed_dim", 256))


def _load_folder(source: str) -> nn.Module:
    """A model in Hugging Face's layout: a local folder, or a repository on the hub."""
    from transformers import BlipForImageTextRetrieval

    folder = Path(source)
    if not folder.is_dir():
        remedy = "download that repository elsewhere and give its folder as pretrained, or an original .pth"
        folder = fetch(source, "config.json", remedy=remedy).parent
        fetch(source, "model.safetensors", "pytorch_model.bin", remedy=remedy)
    elif not (folder / "config.json").is_file():
        raise UserError(f"the folder {source} has no config.json, which a BLIP model in Hugging Face's layout needs")
    try:
        model, report = BlipForImageTextRetrieval.from_pretrained(
            folder, output_loading_info=True, local_files_only=True
        )
    except Exception as error:  # whatever a damaged file raises
        raise UserError(f"the BLIP model in {source} cannot be loaded: {_brief(error)}") from error
    _check_complete(source, report["missing_keys"], report["unexpected_keys"])
    return model


def _load_original(path: str) -> nn.Module:
    """A model from an original checkpoint, a state dict (under "model"), loaded as data and never as code."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights (or is damaged) and was not run; save its state dict alone with torch.save"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a BLIP checkpoint: {_brief(error)}") from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict of BLIP")
    state = rename(state)
    model = _build_for(path, state)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit BLIP: {_brief(error)}") from error
    _check_complete(path, result.missing_keys, result.unexpected_keys)
    return model


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An original state dict under transformers' names, without what only training needs."""
    renamed = {}
    for name, tensor in state.items():
        if not TRAINING_ONLY.search(name):
            for pattern, new in RENAMES:
                name = pattern.sub(new, name)
            renamed[name] = tensor
    return renamed


def _build_for(path: str, state: dict[str, Tensor]) -> nn.Module:
    """An untrained model of the sizes that the weights have (heads are 64 wide in all of BLIP)."""
    from transformers import BlipForImageTextRetrieval

    needed = (
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding",
        "text_encoder.embeddings.word_embeddings.weight",
        "text_encoder.embeddings.position_embeddings.weight",
        "text_encoder.encoder.layer.0.intermediate.dense.weight",
        "text_proj.weight",
    )
    _check_complete(path, [name for name in needed if name not in state], [])
    patches, positions, words, places, hidden, projection = (state[name] for name in needed)
    width, patch = patches.shape[0], patches.shape[-1]
    text_width = words.shape[1]
    text = dict(
        vocab_size=words.shape[0],
        hidden_size=text_width,
        num_attention_heads=text_width // 64,
        num_hidden_layers=_count(state, r"^text_encoder\.encoder\.layer\.(\d+)\."),
        intermediate_size=hidden.shape[0],
        max_position_embeddings=places.shape[0],
    )
    vision = dict(patch_size=patch, image_size=patch * round((positions.shape[1] - 1) ** 0.5))
    layers = _count(state, r"^vision_model\.encoder\.layers\.(\d+)\.")
    return BlipForImageTextRetrieval(
        configuration(width, layers, text=text, vision=vision, embed_dim=projection.shape[0])
    )


def _count(names: Iterable[str], pattern: str) -> int:
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=0)


def _check_complete(source: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    unexpected = [name for name in unexpected if not TRAINING_ONLY.search(name)]
    problems = [
        f"{what} {', '.join(sorted(names)[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for what, names in (("lacks", list(missing)), ("has left over", unexpected))
        if names
    ]
    if problems:
        raise UserError(
            f"{source} is not a BLIP retrieval or pre-training checkpoint: it {'; it '.join(problems)}; choose one "
            "with an image-text contrastive branch, such as model_base_14M.pth"
        )


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:397] + "..."
