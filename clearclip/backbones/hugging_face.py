"""CLIPModel and SiglipModel in Hugging Face's layout: transformers' own modules, described by their config.json.

``transformers`` is an optional package (``pip install 'clearclip[blip]'``), imported when such a model is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.backbones.checkpoints import load_weights, read_checkpoint
from clearclip.backbones.dense_encoder import TOWERS, DenseEncoder
from clearclip.backbones.tokenizers import load_tokenizer
from clearclip.methods import BlockParts
from clearclip.model_folders import HUGGING_FACE_CONFIG, read_json
from clearclip.utils.errors import UserError
from clearclip.weights import RANDOM, Weights


class HuggingFaceCLIP(nn.Module):
    """A CLIPModel or SiglipModel with the interface of OpenCLIP's: ``visual``, and ``encode_text``.

    Args:
        model: transformers' module.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.visual = HuggingFaceVisual(model.vision_model, getattr(model, "visual_projection", None))
        self.text = model.text_model
        self.text_projection = getattr(model, "text_projection", nn.Identity())

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, E) of (B, context) int64 tokens."""
        return self.text_projection(self.text(input_ids=tokens).pooler_output)


class HuggingFaceVisual(nn.Module):
    """The image tower and what projects it, or None."""

    def __init__(self, vision: nn.Module, projection: nn.Module | None):
        super().__init__()
        self.vision, self.projection = vision, projection


@TOWERS.register_module(HuggingFaceVisual)
class HuggingFaceEncoder(DenseEncoder):
    """Dense features of transformers' CLIP or SigLIP image tower; of SigLIP's pool the value path, patch by patch.

    Args:
        visual: the image tower.
    """

    def __init__(self, visual: HuggingFaceVisual):
        super().__init__()
        self.visual = visual
        embeddings = visual.vision.embeddings
        patch, side = embeddings.patch_size, embeddings.image_size
        self.patch_size = (patch, patch)
        self.grid_size = (side // patch, side // patch)
        self.image_size = side
        self.has_class_token = hasattr(embeddings, "class_embedding")
        self.num_prefix_tokens = int(self.has_class_token)
        self.dim = embeddings.embed_dim
        if visual.projection is not None:
            self.dim = visual.projection.out_features

    @property
    def blocks(self) -> nn.ModuleList:
        return self.visual.vision.encoder.layers

    def parts(self, grid: tuple[int, int]) -> list[BlockParts]:
        return [_block_parts(block) for block in self.blocks]

    def tokens(self, images: Tensor, position_resize: str) -> Tensor:
        vision, embeddings = self.visual.vision, self.visual.vision.embeddings
        patches = embeddings.patch_embedding(images.to(embeddings.patch_embedding.weight.dtype))
        tokens = patches.flatten(2).transpose(1, 2)
        if self.has_class_token:
            class_token = embeddings.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
            tokens = torch.cat([class_token, tokens], dim=1)
        positions = self.positions(embeddings.position_embedding.weight, self.grid(images), position_resize)
        tokens = tokens + positions.to(tokens.dtype)
        # CLIP's towers have a class token and this norm (the name is transformers' own), SigLIP's have neither.
        if self.has_class_token:
            tokens = vision.pre_layrnorm(tokens)
        return tokens

    def head(self, patches: Tensor) -> Tensor:
        vision = self.visual.vision
        patches = vision.post_layernorm(patches)
        # SigLIP pools by attention: of that, the values' path is what a patch alone becomes.
        if hasattr(vision, "head"):
            attention, width = vision.head.attention, patches.shape[-1]
            values = F.linear(patches, attention.in_proj_weight[-width:], attention.in_proj_bias[-width:])
            patches = attention.out_proj(values)
            patches = patches + vision.head.mlp(vision.head.layernorm(patches))
        if self.visual.projection is None:
            return patches
        return self.visual.projection(patches)


def _block_parts(block: nn.Module) -> BlockParts:
    """The parts of a block of transformers': one projection each for queries, keys and values."""
    attention = block.self_attn
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return BlockParts(
        ln_1=block.layer_norm1,
        in_proj_weight=[projection.weight for projection in projections],
        in_proj_bias=[projection.bias for projection in projections],
        heads=attention.num_heads,
        out_proj=attention.out_proj,
        scale_1=nn.Identity(),
        ln_2=block.layer_norm2,
        mlp=block.mlp,
        scale_2=nn.Identity(),
    )


def load_hugging_face(
    folder: Path, paths: Sequence[Path], weights: Weights
) -> tuple[nn.Module, Callable[[list[str]], Any], tuple[float, ...], tuple[float, ...]]:
    """Load a CLIPModel or SiglipModel in fp32.

    Args:
        folder: has its config.json, and its tokenizer.
        paths: its weights; none for random ones.
        weights: what was asked for.

    Returns:
        Model, tokenizer, mean and std of 0..1 RGB.

    Raises:
        UserError: ``transformers`` is missing; a configuration, weights or tokenizer that cannot be loaded.
    """
    try:
        from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
    except ImportError as error:
        raise UserError(f"{folder} needs the package transformers: pip install transformers") from error
    description = read_json(folder / HUGGING_FACE_CONFIG)
    is_clip = description["model_type"] == "clip"
    config_class, model_class = SiglipConfig, SiglipModel
    if is_clip:
        config_class, model_class = CLIPConfig, CLIPModel
    try:
        config = config_class.from_dict(description)
        model = model_class(config)
    except Exception as error:  # whatever a configuration of anyone's raises
        raise UserError(f"{folder / HUGGING_FACE_CONFIG} makes no model ({error}); download it again") from error
    text: dict[str, Any] = {"context_length": config.text_config.max_position_embeddings}
    # A CLIP with the usual vocabulary has OpenCLIP's own tokenizer.
    if not is_clip or config.text_config.vocab_size != open_clip.tokenizer.SimpleTokenizer().vocab_size:
        text["hf_tokenizer_name"] = weights.model_name.partition(":")[2]
        # SigLIP was trained with lower-cased text without punctuation.
        if not is_clip:
            text["tokenizer_kwargs"] = {"clean": "canonicalize"}
    tokenizer = load_tokenizer(text, folder)
    if weights.pretrained != RANDOM:
        load_weights(model, read_checkpoint(paths, model.state_dict()), weights.label)
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if is_clip:
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    path = folder / "preprocessor_config.json"
    if path.is_file():
        preprocess = read_json(path)
        mean = tuple(preprocess.get("image_mean") or mean)
        std = tuple(preprocess.get("image_std") or std)
    return HuggingFaceCLIP(model), tokenizer, mean, std
