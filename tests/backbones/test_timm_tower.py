"""timm's towers: their own tokens, every part of a block, methods on towers with registers or without a class token."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import load_tool
from open_clip.timm_model import TimmModel
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.backbones import TOWERS, DenseEncoder, ImageEncoder, TimmEncoder
from clearclip.backbones.casting import cast
from clearclip.methods import GEM, NACLIP, RCS, SCCLIP, Method
from clearclip.utils.devices import possible_precisions

#: What is special → timm's name, OpenCLIP's pool and projection, and what is changed to make it small.
SMALL = {"embed_dim": 64, "num_heads": 4}
NORMED = {**SMALL, "qk_norm": True, "init_values": 1.0}
KINDS = {
    "SigLIP": ("vit_base_patch16_siglip_224", "map", "none", SMALL),
    "q/k norm, layer scale": ("vit_base_patch16_siglip_224", "map", "linear", NORMED),
    "PE": ("vit_pe_core_base_patch16_224", "map", None, SMALL),
    "EVA-01": ("eva_giant_patch14_224", "token", None, SMALL),
    "EVA-02": ("eva02_base_patch16_clip_224", "token", None, SMALL),  # split qkv, inner norm, SwiGLU, rotation
    "EVA-02 E": ("eva02_enormous_patch14_clip_224", "token", None, SMALL),  # norms afterwards
    "registers": ("vit_base_patch14_reg4_dinov2", "token", "linear", SMALL),  # layer scale, class token
    "registers alone": ("vit_medium_patch16_reg4_gap_256", "avg", "mlp", SMALL),
    "MobileCLIP": ("vit_base_mci_224", "token", None, {}),  # a stem with BatchNorm, positions for patches only
    "ViTamin": ("vitamin_small_224", "", "linear", {}),  # MBConv blocks, a pool before the norm
}  # fmt: skip


class BySize(LastBlock):
    """Positions are resized as timm does it."""

    position_resize = "size"


CLIP = BySize("qk", residual=True, ffn=True)


@pytest.fixture
def build(monkeypatch):
    """A small tower of a kind, with random weights by which every part matters."""
    create = timm.create_model

    def build(kind: str, depth: int = 2) -> TimmModel:
        name, pool, projection, changed = KINDS[kind]
        monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **k, **changed, depth=depth, img_size=64))
        visual = TimmModel(name, 32, 64, pool=pool, proj=projection).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for parameter in visual.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.15, generator=generator))
        return visual

    return build


def noise(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def tokens_before_head(encoder: DenseEncoder, images: Tensor) -> Tensor:
    """Patch tokens after the last block, by method CLIP."""
    seen = []
    encoder.head = lambda patches: seen.append(patches) or patches
    encoder(images, [CLIP])
    del encoder.head
    return seen[0]


@torch.inference_mode()
def timms_own(visual: TimmModel, images: Tensor) -> Tensor:
    visual = copy.deepcopy(visual)
    visual.set_input_size(tuple(images.shape[-2:]))
    return visual.forward_intermediates(images, indices=1, output_fmt="NLC")["image_intermediates"][0]


def difference(got: Tensor, wanted: Tensor) -> float:
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_embeddings_are_timms_own(kind, build):
    visual = build(kind)
    encoder, trunk = TOWERS.build(visual), visual.trunk
    assert type(encoder) is TimmEncoder
    rows, columns = encoder.grid_size
    for grid in ((rows, columns), (rows + 2, columns - 1)):
        images = noise(*(side * patch for side, patch in zip(grid, encoder.patch_size, strict=True)))
        wanted = timms_own(visual, images)
        assert difference(tokens_before_head(encoder, images), wanted) < 1e-5
        (features,) = encoder(images, [CLIP])
        assert features.shape == (2, *grid, encoder.dim)
    # What the whole head makes of one patch alone: pools over one token give that token.
    prefix = encoder.num_prefix_tokens if trunk.global_pool == "avg" else 0
    alone = torch.cat([torch.zeros(2, prefix, trunk.embed_dim), trunk.norm(wanted[:, 3:4])], dim=1)
    embedding = visual.head(trunk.forward_head(alone))
    torch.testing.assert_close(features.flatten(1, 2)[:, 3], embedding, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("bf16" not in possible_precisions(torch.device("cpu")), reason="bf16 is not native to this CPU")
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind, build):
    visual = build(kind)
    encoder = TOWERS.build(visual)
    images = noise(*(4 * patch for patch in encoder.patch_size))
    wanted = tokens_before_head(encoder, images)
    got = tokens_before_head(cast(TOWERS.build(copy.deepcopy(visual)), "bf16"), images)
    assert got.dtype == torch.bfloat16
    assert difference(got.float(), wanted) < 0.1


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("EVA-02", lambda part: replace(part, rotate=None)),
        ("EVA-02", lambda part: replace(part, inner_norm=None)),
        ("EVA-02", lambda part: replace(part, in_proj_bias=None)),
        ("EVA-01", lambda part: replace(part, in_proj_bias=part.in_proj_bias[::-1])),
        ("PE", lambda part: replace(part, rotate=lambda heads: part.rotate(heads.flip(2)).flip(2))),
        ("q/k norm, layer scale", lambda part: replace(part, q_norm=None)),
        ("q/k norm, layer scale", lambda part: replace(part, k_norm=None)),
        ("q/k norm, layer scale", lambda part: replace(part, scale_1=nn.Identity())),
        ("registers", lambda part: replace(part, scale_2=nn.Identity())),
        ("EVA-02 E", lambda part: replace(part, scale_1=nn.Identity())),
    ],
)
def test_a_fault_in_a_part_is_noticed(kind, fault, build, monkeypatch):
    visual = build(kind)
    encoder = TOWERS.build(visual)
    images = noise(*(4 * patch for patch in encoder.patch_size))
    wanted = timms_own(visual, images)
    assert difference(tokens_before_head(encoder, images), wanted) < 1e-5
    parts = encoder.parts
    monkeypatch.setattr(encoder, "parts", lambda grid: [fault(part) for part in parts(grid)])
    assert difference(tokens_before_head(encoder, images), wanted) > 1e-3


@pytest.mark.parametrize("name", ["reg_token", "cls_token", "pos_embed"])
def test_a_fault_in_the_tokens_is_noticed(name, build):
    visual = build("registers")
    encoder = TOWERS.build(copy.deepcopy(visual))
    images = noise(56, 56)
    getattr(encoder.visual.trunk, name).mul_(-1)
    assert difference(tokens_before_head(encoder, images), timms_own(visual, images)) > 1e-3


def test_patches_are_projected_alone_as_among_all_tokens(build):
    """As SC-CLIP does it: the rotation of a patch is that of its place."""
    encoder = TOWERS.build(build("PE"))
    part = encoder.parts((4, 4))[-1]
    x = torch.randn(2, 17, 64)
    torch.testing.assert_close(part.project(x, "k")[:, :, 1:], part.project(x[:, 1:], "k"))


# Formulas of the methods, for a block of timm's and the tokens before it; maps are held, heads looped over.


def heads_of(visual: TimmModel, index: int, x: Tensor) -> dict[str, Tensor]:
    block = visual.trunk.blocks[index]
    attention, x = block.attn, block.norm1(x)
    if attention.qkv is None:
        parts = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    else:
        parts = attention.qkv(x).chunk(3, dim=-1)
    parts = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts]
    q, k, v = attention.q_norm(parts[0]), attention.k_norm(parts[1]), parts[2]
    if getattr(visual.trunk, "rope", None) is not None:
        rope, first = visual.trunk.rope.get_embed(), visual.trunk.num_prefix_tokens
        for part in (q, k):
            part[:, :, first:] = apply_rot_embed_cat(part[:, :, first:].clone(), rope, half=attention.rotate_half)
    return {"q": q, "k": k, "v": v}


def softmax_map(a: Tensor, b: Tensor, added: Tensor | float = 0.0, factor: Tensor | float = 1.0) -> Tensor:
    return (factor * a @ b.mT / math.sqrt(a.shape[-1]) + added).softmax(dim=-1)


def merged(visual: TimmModel, gathered: Tensor, index: int = -1) -> Tensor:
    block = visual.trunk.blocks[index]
    x = block.attn.proj(block.attn.norm(gathered.transpose(1, 2).flatten(2)))
    return block.ls1(x) if hasattr(block, "ls1") else x


def near(grid: tuple[int, int], first: int, sigma: float) -> Tensor:
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    omega = torch.zeros(first + len(places), first + len(places))
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            omega[first + i, first + j] = math.exp(-(math.dist(a, b) ** 2) / (2 * sigma**2))
    return omega


def expected(visual: TimmModel, method: Method, inputs: list[Tensor], grid: tuple[int, int]) -> Tensor:
    """The tokens after the last of six blocks."""
    blocks = [heads_of(visual, index, inputs[index]) for index in range(6)]
    q, k, v = (blocks[5][name] for name in "qkv")
    if isinstance(method, NACLIP):
        omega = near(grid, visual.trunk.num_prefix_tokens, method.sigma)
        return merged(visual, softmax_map(k, k, omega) @ v)
    if isinstance(method, RCS):
        mean = sum(softmax_map(blocks[layer]["q"], blocks[layer]["k"]) for layer in method.layers) / len(method.layers)
        return merged(visual, 2 * (0.7 * softmax_map(q, q) + 0.3 * mean) @ v)
    if isinstance(method, LastBlock):
        return merged(visual, softmax_map(q, q) @ v)
    stream = inputs[0]  # GEM
    for index, heads in enumerate(blocks):
        size = visual.trunk.blocks[index].norm1(inputs[index]).norm(dim=-1).mean(dim=-1)[:, None, None, None]
        total = 0
        for name in "vkq":
            p = F.normalize(heads[name], dim=-1)
            p = F.normalize(softmax_map(p, p, factor=size) @ p, dim=-1)
            total = total + softmax_map(p, p, factor=size) @ heads["v"]
        stream = stream + merged(visual, total / 3, index)
    return stream


@pytest.mark.parametrize("kind", ["SigLIP", "registers", "registers alone", "EVA-02", "PE", "q/k norm, layer scale"])
@torch.inference_mode()
def test_methods_on_towers(kind, build):
    visual = build(kind, depth=6)
    encoder = TOWERS.build(visual)
    grid = encoder.grid_size
    images = noise(*(side * patch for side, patch in zip(grid, encoder.patch_size, strict=True)))
    inputs: list[Tensor] = []
    sized = copy.deepcopy(visual)
    sized.set_input_size(tuple(images.shape[-2:]))
    for block in sized.trunk.blocks:
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    sized(images)
    methods = [LastBlock(), NACLIP(), RCS(layers=(1, 2, 3)), GEM()]
    for method, got in zip(methods, encoder(images, methods), strict=True):
        wanted = encoder.head(expected(sized, method, inputs, grid)[:, encoder.num_prefix_tokens :])
        assert difference(got.flatten(1, 2), wanted) < 1e-4, method


def test_what_a_method_needs_of_a_tower(build):
    method = SCCLIP(pre=3, post=1, summed=(1, 2), rho=0.3)
    for kind in ("SigLIP", "registers alone"):
        encoder = TOWERS.build(build(kind, depth=6))
        with pytest.raises(UserError, match=r"SC-CLIP .*reads the class token"):
            encoder.check(method)
    for kind in ("registers", "PE"):
        encoder = TOWERS.build(build(kind, depth=6))
        encoder.check(method)
        assert encoder(noise(*(4 * patch for patch in encoder.patch_size)), [method])[0].isfinite().all()
    encoder.same_tokens = False
    for mixing in (method, RCS(layers=(1, 2)), GEM()):
        with pytest.raises(UserError, match="mixes the tokens of several blocks"):
            encoder.check(mixing)
    encoder.check(NACLIP())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("RN50", "ModifiedResNet"),
        ("coca_ViT-B-32", "pools by attention"),
        ("convnext_base", "ConvNeXt"),
        ("MobileCLIP2-S0", "FastVit"),
        ("swin_base_patch4_window7_224", "SwinTransformer"),
        ("vit_relpos_medium_patch16_cls_224", "VisionTransformerRelPos"),
    ],
)
def test_other_towers_are_refused_before_anything_is_fetched(name, what, monkeypatch):
    monkeypatch.setattr("clearclip.backbones.clip_loading.find_checkpoint", lambda weights: pytest.fail("fetched"))
    tag = (open_clip.list_pretrained_tags_by_model(name) or ["random"])[0]
    with pytest.raises(UserError, match=rf"^{name}: the image tower .*{what}.*; supported are ViTs") as error:
        ClearCLIP.from_pretrained(name, tag, device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda trunk: setattr(trunk.blocks[1].attn, "gate", nn.Linear(64, 64)), "gated attention"),
        (lambda trunk: setattr(trunk, "global_pool", "max"), "pooling by max"),
        (lambda trunk: trunk.blocks.append(nn.Identity()), "Identity"),
        (lambda trunk: setattr(trunk, "patch_embed", nn.Identity()), "Identity"),
    ],
)
def test_parts_that_are_not_known_are_named(change, what, build):
    visual = build("SigLIP")
    change(visual.trunk)
    with pytest.raises(UserError, match=f"the image tower has {what}; supported"):
        TOWERS.build(visual)


def test_a_tower_of_ones_own():
    """Registered for the class of its module, or one that this inherits."""

    class Mine(open_clip.transformer.VisionTransformer):
        pass

    visual = Mine(32, 8, 32, 2, 2, 4.0)
    assert type(TOWERS.build(visual)) is ImageEncoder

    @TOWERS.register_module(Mine)
    class MyEncoder(ImageEncoder):
        pass

    try:
        assert type(TOWERS.build(visual)) is MyEncoder
    finally:
        del TOWERS[Mine]


def test_the_zoo(tmp_path, capsys):
    """Its page names every model of the installed OpenCLIP; one that runs is compared, one that does not says why."""
    zoo = load_tool("zoo")
    page = tmp_path / "models.md"
    assert zoo.main(["--models", "PE-Core-T-16-384", "RN50", "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "PE-Core-T-16-384: " in shown and "(another size)" in shown
    ran, refused = page.read_text().split("## Refused")
    assert "| PE | PE-Core-T-16-384 | 12 blocks, patch 16, 384 px |" in ran
    assert "| ResNet | RN50 | 3 | the image tower is a ModifiedResNet |" in refused
    with pytest.raises(UserError, match="unknown model 'ViT-Z'"):
        zoo.main(["--models", "ViT-Z"])
    written = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    if f"open_clip_torch {open_clip.__version__}, " in written:
        cells = {name for line in written.splitlines() for cell in line.split("|") for name in cell.strip().split(", ")}
        own = {name for name in open_clip.list_models() if name.startswith(("tiny", "narrow"))}  # of other tests
        assert set(open_clip.list_models()) - own <= cells
