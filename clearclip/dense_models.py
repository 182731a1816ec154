"""Backbones outside OpenCLIP whose patches are aligned with text: their names, their files, where those are published.

A model is a published name (``tipsv2-b14``), or a folder that has its files under the names that they were published
with. Nothing of a repository's own code is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from clearclip.utils.errors import UserError
from clearclip.utils.hub import fetch, fetch_url

#: The value of ``pretrained`` that means a model's published weights.
PUBLISHED = "published"


@dataclass(frozen=True)
class Family:
    """Models with the same kind of files.

    Attributes:
        name: as papers write it.
        files: what a file is for → patterns of its name in a folder, the first one that fits counts.
        optional: what a folder may lack.
        remedy: where to get the files by hand.
        has_class_token: whether the first token is a class token of the space of the text.
        same_tokens: whether all blocks have the tokens of the first.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...]
    remedy: str
    has_class_token: bool = True
    same_tokens: bool = True


TIPS = Family(
    "TIPSv2",
    {
        "image": ("*_vision.npz", "model.safetensors"),
        "text": ("*_text.npz", "model.safetensors"),
        "tokenizer": ("tokenizer.model",),
        "config": ("config.json",),
    },
    ("config",),
    "download model.safetensors, tokenizer.model and config.json of google/tipsv2-b14 (-l14, -so400m14, -g14)",
)
DINO_TXT = Family(
    "dino.txt",
    {"image": ("dinov3_*_pretrain_*.pth",), "text": ("dinov3_*_dinotxt_*.pth",), "config": ("config.json",)},
    ("config",),
    "ask Meta for both dinov3_vitl16_pretrain_*.pth and dinov3_vitl16_dinotxt_*.pth (they are behind a form)",
    same_tokens=False,
)
RADIO = Family(
    "C-RADIO",
    {
        "adaptors": ("*radio*.pth.tar",),
        "image": ("model.safetensors",),
        "text": ("*siglip2*/config.json",),
        "text weights": ("*siglip2*/model*.safetensors",),
        "tokenizer": ("*siglip2*/tokenizer.json",),
        "tokenizer config": ("*siglip2*/tokenizer_config.json",),
        "config": ("config.json",),
    },
    ("image", "config", "tokenizer config"),
    "download the .pth.tar (and model.safetensors) of nvidia/C-RADIOv3-B or another one, and into a folder siglip2 "
    "beside them the config.json, model.safetensors and tokenizer.json of google/siglip2-so400m-patch16-naflex (v3-B, "
    "v3-L) or google/siglip2-giant-opt-patch16-384 (v3-H, v4)",
    has_class_token=False,  # it has one for each teacher, and the first is not that of SigLIP 2 everywhere
)
TALK2DINO = Family(
    "Talk2DINO",
    {
        "projection": ("*_mlp_infonce.pth",),
        "image": ("dinov2_*.pth", "dinov3_*.pth", "model.safetensors"),
        "text": ("ViT-B-16.pt", "open_clip_config.json"),
        "text weights": ("ViT-B-16.pt", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        "config": ("config.json",),
    },
    ("config",),
    "download vitb_mlp_infonce.pth of github.com/lorebianchi98/Talk2DINO, dinov2_vitb14_reg4_pretrain.pth and OpenAI's "
    "ViT-B-16.pt (for the other sizes vitl_*, dinov3_vitb_*, dinov3_vitl_*)",
)
FAMILIES = (TIPS, DINO_TXT, RADIO, TALK2DINO)


@dataclass(frozen=True)
class DenseModel:
    """A published model.

    Attributes:
        family: which kind.
        sources: what a file is for → a repository on the hub and a file in it, or an address; empty for weights that
            only their owners hand out.
    """

    family: Family
    sources: Mapping[str, tuple[str, str] | str] = field(default_factory=dict)


def _tips(size: str) -> DenseModel:
    names = {"image": "model.safetensors", "text": "model.safetensors", "tokenizer": "tokenizer.model"}
    names["config"] = "config.json"
    return DenseModel(TIPS, {part: (f"google/tipsv2-{size}", name) for part, name in names.items()})


def _radio(repository: str, adaptors: str, text: str) -> DenseModel:
    names = {"text": "config.json", "text weights": "model.safetensors"}
    names |= {"tokenizer": "tokenizer.json", "tokenizer config": "tokenizer_config.json"}
    sources = {part: (f"google/{text}", name) for part, name in names.items()}
    sources |= {"adaptors": (f"nvidia/{repository}", adaptors), "image": (f"nvidia/{repository}", "model.safetensors")}
    return DenseModel(RADIO, sources)


def _talk2dino(projection: str, image: str) -> DenseModel:
    base = "https://raw.githubusercontent.com/lorebianchi98/Talk2DINO/main/weights"
    clip = ("timm/vit_base_patch16_clip_224.openai", "open_clip_model.safetensors")
    sources = {"projection": f"{base}/{projection}_mlp_infonce.pth", "image": (f"timm/{image}", "model.safetensors")}
    return DenseModel(TALK2DINO, {**sources, "text": clip, "text weights": clip})


NAFLEX, GIANT = "siglip2-so400m-patch16-naflex", "siglip2-giant-opt-patch16-384"
#: The models by name. C-RADIOv3-g is not among them: no source says which text tower its adaptor belongs to.
DENSE_MODELS = {
    **{f"tipsv2-{size}": _tips(size) for size in ("b14", "l14", "so400m14", "g14")},
    "dinotxt-l16": DenseModel(DINO_TXT),
    "dinotxt-l16-backbone": DenseModel(DINO_TXT),
    "c-radio-v3-b": _radio("C-RADIOv3-B", "c-radio_v3-b_half.pth.tar", NAFLEX),
    "c-radio-v3-l": _radio("C-RADIOv3-L", "c-radio-v3_l_half.pth.tar", NAFLEX),
    "c-radio-v3-h": _radio("C-RADIOv3-H", "c-radio_v3-h_half.pth.tar", GIANT),
    "c-radio-v4-so400m": _radio("C-RADIOv4-SO400M", "c-radio_v4-so400m_half.pth.tar", GIANT),
    "c-radio-v4-h": _radio("C-RADIOv4-H", "c-radio_v4-h_half.pth.tar", GIANT),
    "talk2dino-b14": _talk2dino("vitb", "vit_base_patch14_reg4_dinov2.lvd142m"),
    "talk2dino-l14": _talk2dino("vitl", "vit_large_patch14_reg4_dinov2.lvd142m"),
    "talk2dino-dinov3-b16": _talk2dino("dinov3_vitb", "vit_base_patch16_dinov3_qkvb.lvd1689m"),
    "talk2dino-dinov3-l16": _talk2dino("dinov3_vitl", "vit_large_patch16_dinov3_qkvb.lvd1689m"),
}


def folder_family(folder: Path) -> Family | None:
    """Of which family the files in a folder are, by the one that only this family has."""
    if any(folder.glob("*_vision.npz")) or ((folder / "tokenizer.model").is_file() and _is_tips(folder)):
        return TIPS
    marks = ((DINO_TXT, "text"), (RADIO, "adaptors"), (TALK2DINO, "projection"))
    return next((family for family, part in marks if any(folder.glob(family.files[part][0]))), None)


def _is_tips(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "tipsv2" in path.read_text(encoding="utf-8", errors="replace")


def find_family(model_name: str) -> Family | None:
    """The family of a model by its published name, its ``local-dir:`` folder or its repository; None for others."""
    if model_name in DENSE_MODELS:
        return DENSE_MODELS[model_name].family
    schema, _, place = model_name.partition(":")
    if schema == "hf-hub":
        return TIPS if place.startswith("google/tipsv2-") else None
    return folder_family(Path(place)) if schema == "local-dir" and Path(place).is_dir() else None


def dense_files(model_name: str, pretrained: str | None) -> dict[str, Path]:
    """The files of a model, by what each is for; fetched where they are published and not on this machine.

    Args:
        model_name: its name, or its folder as ``local-dir:``.
        pretrained: a folder, or :data:`PUBLISHED` or None for the published weights.

    Raises:
        UserError: a file that is not there or cannot be fetched; says which, and where to get it.
    """
    family = find_family(model_name)
    schema, _, place = model_name.partition(":")
    if pretrained not in (None, PUBLISHED):
        return _files_in(Path(pretrained), family)
    if schema == "local-dir":
        return _files_in(Path(place), family)
    remedy = f"{family.remedy}, and give their folder as pretrained"
    if schema == "hf-hub":
        model = _tips(place.removeprefix("google/tipsv2-"))
    else:
        model = DENSE_MODELS[model_name]
    if not model.sources:
        raise UserError(f"the weights of {model_name} cannot be downloaded by a program; {remedy}")
    files = {}
    for part, source in model.sources.items():
        get = partial(fetch_url, source) if isinstance(source, str) else partial(fetch, *source)
        files[part] = get(remedy=remedy)
    return files


def _files_in(folder: Path, family: Family) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; {family.remedy}, and give their folder as pretrained")
    files = {}
    for part, patterns in family.files.items():
        matching = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
        if matching:
            files[part] = matching[0]
        elif part not in family.optional:
            raise UserError(f"{folder} lacks the {part} of {family.name} ({' or '.join(patterns)}); {family.remedy}")
    return files
