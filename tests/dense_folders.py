"""Folders with tiny TIPSv2, dino.txt, C-RADIO and Talk2DINO models in their published layouts.

A weight follows from its published name and shape (:func:`draw`), so that what the authors' own classes computed with
the same weights can be compared with: tests/release/dense_outputs.npz, recorded from google-deepmind/tips 4db271d,
facebookresearch/dinov3 6876159, NVlabs/RADIO c0f3701, lorebianchi98/Talk2DINO 4918c2d, and for SigLIP 2's text and
DINOv2's tower transformers 5.24.0, in fp32 on a CPU.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from tiny import TINY, named_weights, sized_image
from torch import Tensor

from clearclip import ClearCLIP
from clearclip.methods import build_method

OUTPUTS = np.load(Path(__file__).parent / "release" / "dense_outputs.npz", allow_pickle=False)
WORDS = (
    "a photo of a tree sky traffic light bed house grass person road good bad large small art origami video game itap"
)


def recorded(key: str) -> Tensor:
    """An output of the authors' own classes."""
    return torch.from_numpy(OUTPUTS[key])


def images(size: str) -> Tensor:
    """The normalised image of a size such as "84x154", (1, 3, H, W)."""
    height, width = map(int, size.split("x"))
    return sized_image(height, width)[None]


@torch.inference_mode()
def patch_features(model: ClearCLIP, size: str, method: str) -> Tensor:
    """The patches of an image of this size by a method, row by row, (N, E)."""
    return model.image_encoder(images(size), [build_method(method)])[0][0].flatten(0, 1)


def largest_error(ours: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return ((ours - wanted).abs().max() / wanted.abs().max()).item()


@lru_cache
def weights(layout: str, prefix: str = "", drawn: str = "") -> dict[str, Tensor]:
    """The weights of a layout under their published names.

    Args:
        layout: which one.
        prefix: what stands before a name where its value is drawn.
        drawn: of which names the prefix is put before; default: of all.
    """
    state = {}
    for line in OUTPUTS[f"layout|{layout}"]:
        name, shape = re.fullmatch(r"(\S+) \((.*)\)", str(line)).groups()
        sizes = tuple(int(size) for size in shape.split(",") if size.strip())
        full = prefix + name if name.startswith(drawn) else name
        state[name] = torch.from_numpy(draw(full, sizes))
    return state


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one weight."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    last = name.rpartition(".")[2]
    tokens = ("cls_token", "register_tokens", "storage_tokens", "mask_token", "token", "pos_embed")
    if last in ("gamma", "grandma"):
        return 0.5 + 0.1 * normal
    if last in (*tokens, "positional_embedding") or "embedding" in name:
        return 0.3 * normal
    if last in ("bias", "in_proj_bias"):
        return 0.05 * normal
    if len(shape) == 1:
        return 1 + 0.1 * normal
    return (normal * (1.5 / np.sqrt(np.prod(shape[1:])))).astype(np.float32)


def tips_folder(folder: Path, form: str = "flat", layout: str = "tipsv2") -> Path:
    """TIPSv2 as the hub has it ("flat" or "nested" configuration), or as a pair of "npz"."""
    state = weights(layout)
    text = {"text_hidden_size": 96, "text_mlp_dim": 384, "text_num_heads": 3, "text_num_layers": 2}
    flat = {"model_type": "tipsv2", "vision_fn": "vit_base", "embed_dim": 96, "img_size": 112, "num_heads": 3, **text}
    heads = {"num_attention_heads": 3}
    nested = {"model_type": "tipsv2", "vision_config": heads, "text_config": heads}
    config = nested if form == "nested" else flat
    config["auto_map"] = {"AutoModel": "modeling_tips.TIPSv2Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_tips.py").write_text("raise SystemExit('own code was run')")
    if form == "npz":
        for tower, name in (("vision", "vision"), ("text", "text")):
            prefix = f"{tower}_encoder."
            arrays = {key.removeprefix(prefix): value.numpy() for key, value in state.items() if key.startswith(prefix)}
            extra = {"temperature": np.float32(0.005)} if tower == "text" else {}
            np.savez(folder / f"tips_v2_oss_b14_{name}.npz", **arrays, **extra)
    else:
        save_file(state, folder / "model.safetensors")
    sentencepiece_model(folder / "tokenizer.model")
    return folder


def sentencepiece_model(path: Path) -> None:
    """A small vocabulary, with the padding as token 0."""
    import sentencepiece

    options = dict(vocab_size=300, model_type="bpe", byte_fallback=True, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1)
    sentences = iter([WORDS] * 20)
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences, model_writer=file, hard_vocab_limit=False, minloglevel=2, **options
        )


def dinotxt_weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both files' weights."""
    backbone = dict(weights("dinotxt-backbone", "backbone."))
    backbone["rope_embed.periods"] = 100 ** (torch.arange(8, dtype=torch.float32) / 8)
    for name in backbone:
        if name.endswith("bias_mask"):
            backbone[name] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(96)
    return backbone, {**weights("dinotxt-head-and-text"), "logit_scale": torch.tensor([2.6592])}


def dinotxt_folder(folder: Path) -> Path:
    """dino.txt's two files."""
    backbone, head = dinotxt_weights()
    torch.save(backbone, folder / "dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth")
    torch.save(head, folder / "dinov3_vitl16_dinotxt_vision_head_and_text_encoder-a442d8f5.pth")
    (folder / "config.json").write_text(json.dumps({"num_heads": 3, "text_num_heads": 4}))
    return folder


def radio_weights(version: str) -> dict[str, Tensor]:
    """The state dict in the .pth.tar."""
    return dict(weights(f"radio-{version}", f"radio-{version}.", "base_model."))


def radio_folder(folder: Path, version: str = "v3", numbered: bool = False, hub: bool = True) -> Path:
    """C-RADIO's .pth.tar, the hub's safetensors beside it, and SigLIP 2's text in a folder."""
    state, name = radio_weights(version), {"v3": "siglip2", "v4": "siglip2-g"}[version]
    teachers = [{"name": teacher} for teacher in ("clip", name, "dino_v2", "sam")]
    if hub:
        tower = {
            key.replace("base_model.", "radio_model.model."): value.contiguous()
            for key, value in state.items()
            if key.startswith("base_model.")
        }
        save_file(tower, folder / "model.safetensors")
    if numbered:
        state = {key.replace(f"_heads.{name}.", "_heads.1."): value for key, value in state.items()}
    args = argparse.Namespace(teachers=teachers, spectral_heads=False)
    contents = {"state_dict": state, "args": args, "epoch": 3}
    torch.save(contents, folder / f"c-radio_{version}-b_half.pth.tar")
    (folder / "config.json").write_text(json.dumps({"num_heads": 3, "adaptor_names": None}))
    siglip_folder(folder / "siglip2-so400m-patch16-naflex")
    return folder


def siglip_folder(folder: Path) -> Path:
    """SigLIP 2's text tower, beside an image tower, in transformers' layout, with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder.mkdir()
    text = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 512, "max_position_embeddings": 64, "projection_size": 80}  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "siglip2", "text_config": text}))
    other = {
        "vision_model.post_layernorm.bias": torch.zeros(3),
        "logit_scale": torch.ones(1),
        "logit_bias": torch.ones(1),
    }
    save_file({**weights("siglip-text"), **other}, folder / "model.safetensors")
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(["<pad>", "<unk>", *WORDS.split()]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


def talk2dino_folder(folder: Path) -> Path:
    """Talk2DINO's projection, DINOv2's file and CLIP's, here in OpenCLIP's layout."""
    torch.save(weights("talk2dino-projection", "proj."), folder / "vitb_mlp_infonce.pth")
    torch.save(weights("talk2dino-dinov2", "dinov2."), folder / "dinov2_vitb14_reg4_pretrain.pth")
    (folder / "config.json").write_text(json.dumps({"num_heads": 3}))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    clip = open_clip.model.CLIP(**TINY)
    torch.save(named_weights(clip.state_dict()), folder / "open_clip_pytorch_model.bin")
    return folder
