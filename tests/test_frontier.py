"""PEARL, SFR, TLP and ProxyCLIP: against their releases' recorded outputs, and against their formulas in loops.

``release/pearl.npz``, ``sfr.npz`` and ``proxyclip.npz`` have, under ``setting|HxW|what``, what the authors' code
computes in fp32 for one window or one image.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import timm
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from test_family import assert_close, features, load, models, tower  # noqa: F401
from tiny import named_weights, sized_image
from torch import Tensor

from clearclip import ClearCLIP, UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.dino_tower import SECOND_ENCODERS
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import (
    ATTENTIONS,
    GEM,
    NACLIP,
    PEARL,
    RCS,
    SCCLIP,
    SFR,
    Context,
    LastBlock,
    Method,
    ProxyCLIP,
    build_method,
    sfr,
)
from clearclip.methods.pearl import newton_schulz
from clearclip.methods.proxyclip import proxy_attention
from clearclip.methods.sfr import feedback_matrix
from clearclip.text import ClassWords, TextFeatures
from clearclip.windows import ImageContext, ScoreMap, WindowGrid, tlp

RELEASE = Path(__file__).with_name("release")
PEARLS, SFRS, PROXIES = (np.load(RELEASE / f"{name}.npz") for name in ("pearl", "sfr", "proxyclip"))


def random_text(words: int) -> Tensor:
    return F.normalize(torch.randn(words, 64, generator=torch.Generator().manual_seed(0)), dim=-1)


def as_classes(text: Tensor, classes: list[int]) -> TextFeatures:
    """Words of these classes with these features."""
    names = [" | ".join(f"word {word}" for word, own in enumerate(classes) if own == label) for label in set(classes)]
    return TextFeatures(ClassWords.parse(names), text, torch.tensor(classes))


@torch.inference_mode()
def word_features(model: ClearCLIP, image: Tensor, method: Method, text: Tensor) -> np.ndarray:
    """Features (N, E) of a method that needs the words."""
    return model.image_encoder(image[None], [method], text)[0][0].flatten(0, 1).numpy()


def parse(key: str) -> tuple[list[str], tuple[int, int], str]:
    setting, size, what = key.split("|")[-3:]
    height, width = map(int, size.split("x"))
    return setting.split("-"), (height, width), what


@pytest.mark.parametrize("key", [key for key in PEARLS.files if key.startswith("PA|") and key.endswith("|features")])
def test_recorded_pearl(models, key):  # noqa: F811
    words, size, _ = parse(key)
    got = features(models[int(words[0][1:])], sized_image(*size)[None], recorded_pearl(words))[0].reshape(-1, 64)
    assert_close(got, PEARLS[key])


def recorded_pearl(words: list[str]) -> Method:
    """The method that a key of the recordings describes."""
    keep = {"residual": words[1] == "vanilla", "ffn": words[1] == "vanilla"}
    if words[2] == "vanilla":
        return LastBlock("qk", **keep)
    alpha = 0 if "nokk" in words else float(words[3].removeprefix("a"))
    return PEARL(alpha, steps=12 if "iters12" in words else 5, svd="svd" in words, **keep)


@pytest.mark.parametrize("key", [key for key in PEARLS.files if key.startswith("PA|") and "|attn" in key])
def test_recorded_attention(models, key):  # noqa: F811
    """What unit vectors as values gather is the attention: all rows, or those of the class token and a patch."""
    words, size, what = parse(key)
    encoder, image = models[int(words[0][1:])].image_encoder, sized_image(*size)[None]
    with torch.inference_mode():
        x = encoder.tokens(image, "scale_factor")
        for index in range(len(encoder.blocks) - 1):
            x = encoder.run_block(index, x, encoder.grid(image))
        block = encoder.parts(encoder.grid(image))[-1]
        unit = torch.eye(x.shape[1]).expand(1, block.heads, -1, -1)
        attention = recorded_pearl(words).gather(block, block.ln_1(x), unit, Context(encoder.grid(image)))[0]
    rows = [0, 1 + x.shape[1] // 2] if what == "attnrows" else slice(None)
    assert_close(attention[:, rows].numpy(), PEARLS[key])


def test_recorded_rotation():
    """R of the recorded M."""
    (key,) = (key for key in PEARLS.files if key.endswith("|96x96|M"))
    assert_close(newton_schulz(torch.from_numpy(PEARLS[key])).numpy(), PEARLS[key.removesuffix("M") + "R"])


def tlp_input(words: int, size: tuple[int, int], amplitude: float) -> Tensor:
    """The recordings' cosines, (words, H, W)."""
    rng = np.random.default_rng(words * 1000000 + size[0] * 1000 + size[1])
    coarse = rng.standard_normal((1, words, size[0] // 8 + 2, size[1] // 8 + 2)).astype(np.float32)
    return F.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear")[0] * amplitude


def smoothed(z: Tensor, image: Tensor, text: Tensor, cells: int) -> ScoreMap:
    """TLP of similarities (words, H, W)."""
    size = tuple(image.shape[1:])
    context = ImageContext(image, size, text, torch.arange(len(text)))
    return tlp.TLP(cells)(ScoreMap(z.permute(1, 2, 0), WindowGrid.of(size, 0, 0, (1, 1))), context)


@pytest.mark.parametrize("setting", sorted({key.rpartition("|")[0] for key in PEARLS.files if key.startswith("TLP")}))
def test_recorded_tlp(setting):
    kind, (words, cells, amplitude), size = setting.split("|")[0], *parse(setting + "|")[:2]
    z = tlp_input(int(words[1:]), size, float(amplitude[3:]))
    text, image = random_text(len(z)), sized_image(*size)
    smooth = smoothed(z, image, text, int(cells[4:]))
    out = F.interpolate(smooth.scores.double().permute(2, 0, 1)[None], size=size, mode="bilinear")[0]
    assert [smooth.grid.rows.cells, smooth.grid.columns.cells] == list(smooth.scores.shape[:2])
    step = [max(1, round(length / int(cells[4:]))) for length in size]
    pooled = [F.avg_pool2d(part.double()[None], step)[0] for part in (z, image)]
    data, across, down = tlp.linear_system(pooled[0].permute(1, 2, 0), pooled[1], text.double())
    found = {"sdiag": tlp.word_shares(text), "C": data, "wh": across, "wv": down, "out": out}
    for key in (key for key in PEARLS.files if key.startswith(setting + "|")):
        what, _, thinned = key.split("|")[-1].partition("_")
        got = found[what][..., ::3, ::3] if thinned else found[what]
        # In fp32 the release's own rounding shows.
        tolerance = 1e-6 if kind == "TLP64" else 5e-3 if what == "out" else 1e-4
        wanted = PEARLS[key]
        if wanted.size:
            np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
        assert got.shape == wanted.shape


#: Recordings of whole images: window, stride; and pixels whose two best classes are as good as equal.
IMAGES = {"whole": (0, 0, 0), "slide": (96, 48, 2)}


@pytest.mark.parametrize("key", [key for key in PEARLS.files if key.startswith("PIPE") and key.endswith("labels")])
def test_recorded_images_with_tlp(models, key):  # noqa: F811
    (case, post, thd), size, _ = parse(key)
    crop, stride, ties = IMAGES[case]
    dense = torch.from_numpy(PEARLS["PA|L8-reduced-pearl-a0.08|96x144|features"])
    words = dense[[index * len(dense) // 8 for index in range(8)]] - dense.mean(dim=0)
    text = as_classes(F.normalize(words, dim=-1), [0, 0, 1, 2, 3, 3, 3, 4])
    how = {"method": "PEARL", "slide_crop": crop, "slide_stride": stride, "logit_scale": 40, "prob_thd": float(thd[3:])}
    how |= {"post": "tlp" if post == "tlp" else None, "tlp_grid": 16}
    settings = replace(models[8].settings, **how)
    (((labels, _),),) = models[8].predict([sized_image(*size)], text, [size], settings=settings)
    assert (labels.numpy() != PEARLS[key]).sum() <= ties


@pytest.mark.parametrize("key", [key for key in SFRS.files if key.endswith("|features") and "-none|" not in key])
def test_recorded_sfr(models, key):  # noqa: F811
    words, size, _ = parse(key)
    keep = (words[1] == "w_resi",) * 2
    parameters = {"ade": (0.25, 0.3, 2.1, 0.7), "voc21": (0.5, 0.3, 2.2, 0.7), "voc20": (0.1, 0.6, 2.1, 0.6)}
    threshold, lambda_r, tau, lambda_s = parameters[next(word for word in words if word in parameters)]
    attention = {"clearclip": "qq", "vanilla": "qk", "sclip": "qq+kk"}
    base = LastBlock(attention[words[2]], *keep) if words[2] in attention else NACLIP("naclip", 5, *keep)
    if "rcs" in words:
        base = RCS(base, 2, lambda_r, layers=(3, 4, 5) if words[0] == "L8" else None)
    text = random_text(8)
    if "ownwords" in words:
        dense = torch.from_numpy(SFRS[f"L12-wo_resi-resclip-std5-ade-none|{key.split('|')[1]}|features"])
        text = dense[[index * len(dense) // 8 for index in range(8)]] - dense.mean(dim=0)
        text = F.normalize(text, dim=-1)
    method = SFR(base, threshold, tau, lambda_s, path="nodelete" not in words)
    assert_close(word_features(models[int(words[0][1:])], sized_image(*size), method, text), SFRS[key])


@pytest.mark.parametrize("key", [key for key in SFRS.files if key.endswith("|sfr")])
def test_recorded_feedback_matrix(key):
    labels = torch.from_numpy(SFRS["sfr-synthetic|" + key.split("|")[1] + "|patchmap"]).long()
    assert_close(feedback_matrix(labels[None], 5, path="nodelete" not in key)[0].numpy(), SFRS[key][1:, 1:])


#: Second encoders of the recordings: their names here, and native side of the tiny ones.
GUIDES = {
    "dino8": ("dino-vitb8", 64),
    "dino16": ("dino-vitb16", 64),
    "dinov2": ("dinov2-vitb14", 70),
    "dinov2reg": ("dinov2-vitb14-reg", 70),
}
RENAMED = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "norm": "ln_post",
    "cls_token": "class_embedding",
    "pos_embed": "positional_embedding",
    "register_tokens": "register_embedding",
    "ls1": "ln_ls1",
    "ls2": "ln_ls2",
    "gamma": "weight",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("guides")


@pytest.fixture
def guide(monkeypatch, files):
    """Options of ProxyCLIP for one of :data:`GUIDES`: timm builds tiny ones, and their weights are in a file."""
    create = timm.create_model

    def guide(name: str) -> dict[str, str]:
        own, side = GUIDES[name]
        small = dict(embed_dim=96, depth=4, num_heads=3, img_size=side)
        monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **small, **options))
        path = files / f"{name}.pth"
        if not path.exists():
            torch.save(drawn_weights(timm.create_model(SECOND_ENCODERS[own])), path)
        return {"guide": own, "guide_weights": str(path)}

    return guide


def drawn_weights(vit: torch.nn.Module) -> dict[str, Tensor]:
    """Weights that follow from names, with the names and shapes of the releases' files, which timm converts."""
    state = vit.state_dict()
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.zeros(1, 1 + state["pos_embed"].shape[1], 96)
    drawn = {}
    for key, value in state.items():
        name = ".".join(["vfm", *(RENAMED.get(part, part) for part in key.split("."))])
        drawn[key] = named_weights({name: value})[name]
    return drawn | ({"mask_token": torch.zeros(1, 96)} if vit.patch_embed.patch_size[0] == 14 else {})


@pytest.mark.parametrize("key", [key for key in PROXIES.files if not key.startswith("segmentor")])
def test_recorded_proxyclip(models, guide, key):  # noqa: F811
    words, size, what = parse(key)
    beta, gamma = (1.0, 6.0) if "gamma6" in words else (1.2, 3.0)
    method = ProxyCLIP(**guide(words[0]), beta=beta, gamma=gamma)
    model, image = models[8], sized_image(*size)[None]
    with torch.inference_mode():
        second = model._second_encoder(model._completed(method))(model.denormalize(image))
        found = {
            "vfm": second[0].flatten(0, 1),
            "attn": proxy_attention(second[0].flatten(0, 1), beta, gamma),
            "features": model.encode(image, [method])[0][0].flatten(0, 1),
        }
    assert_close(found[what].numpy(), PROXIES[key])


@pytest.mark.parametrize("key", [key for key in PROXIES.files if key.startswith("segmentor")])
def test_recorded_images_by_proxyclip(models, guide, key):  # noqa: F811
    (_, name, tag, crop, stride), size, what = parse(key)
    original = {"pad": (75, 101)}.get(tag, size)
    windows = {"slide_crop": int(crop[4:]), "slide_stride": int(stride[6:])}
    thd = float(what.removeprefix("labels-thd")) if what.startswith("labels") else 0.0
    model = models[8]
    how = replace(model.settings, method=ProxyCLIP(**guide(name)), logit_scale=40, prob_thd=thd, **windows)
    text, image = as_classes(random_text(8), [0, 0, 1, 2, 2, 3, 4, 5]), sized_image(*size)
    if what.startswith("labels"):
        (((labels, _),),) = model.predict([image], text, [original], settings=how)
        np.testing.assert_array_equal(labels.numpy(), PROXIES[key])
    else:
        ((scores,),) = model.similarities([image], text, settings=how)
        assert_close(scores.dense(original)[::3, ::3].permute(2, 0, 1).numpy(), PROXIES[key])


#: Windows: square, 4 × 13 patches, one row, one column, single patches.
SIZES = [(64, 64), (64, 208), (16, 96), (80, 16), (16, 16)]
LOOPS = {
    "PEARL": (PEARL(), {}),
    "PEARL, all options": (
        PEARL(0.3, 7, residual=True, ffn=True),
        {"alpha": 0.3, "steps": 7, "residual": True, "ffn": True},
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOOPS)
def test_pearl_formula(models, tower, name, size):  # noqa: F811
    method, options = LOOPS[name]
    image = sized_image(*size)
    assert_close(features(models[12], image[None], method)[0], tower.pearl_features(image.double().numpy(), **options))


@pytest.mark.parametrize("size", [(32, 48), (64, 208), (16, 64), (48, 16), (16, 16)])
@pytest.mark.parametrize("options", [{}, {"sigma": 2.0, "path": False, "lambda_r": None}], ids=["ResCLIP", "options"])
def test_sfr_formula(models, tower, options, size):  # noqa: F811
    image, refined = sized_image(*size), size != (64, 208)  # loops over so many pixels take long
    dense = torch.from_numpy(features(models[12], sized_image(96, 144)[None], NACLIP())).flatten(0, 2)
    text = F.normalize(dense[::7] - dense.mean(dim=0), dim=-1)
    options = {"threshold": 0.2, "tau": 1.8, "lambda_s": 0.6, "lambda_r": 0.3, **options}
    wanted = tower.sfr_features(image.double().numpy(), text.double().numpy(), **options, refine=refined)
    share = options.pop("lambda_r")
    method = SFR(NACLIP() if share is None else RCS(NACLIP(), lambda_r=share), **options, pamr=refined)
    assert_close(word_features(models[12], image, method, text), wanted.reshape(-1, 64))


@pytest.mark.parametrize("size", [(10, 10), (4, 13), (9, 6), (1, 30), (1, 1), (2, 2)])
@pytest.mark.parametrize("path", [True, False])
def test_feedback_matrix_formula(size, path):
    """Labels in patches of chance, some pairs on a line with others between."""
    labels = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    labels[1, :, size[1] // 2 :] = 1
    found = feedback_matrix(labels, 3.0, path)
    for own, one in zip(labels, found, strict=True):
        assert_close(one.numpy(), reference.feedback(own.numpy(), 3.0, path))


@pytest.mark.parametrize("longest", [6, 10, 12, 13, 14, 18, 27])
def test_the_path_passes_the_cells_of_the_release(longest):
    """Between cells whose middle is a border, the last digit of torch.linspace decides: of step / longest, another."""
    for step in range(longest + 1):
        t = reference.linspace(longest + 1, step)
        cells = [
            [int(np.rint((1 - t) * np.float32(start) + t * np.float32(end))) for end in range(longest + 1)]
            for start in range(longest + 1)
        ]
        assert sfr._between(longest + 1, step, longest, torch.device("cpu")).tolist() == cells


@pytest.mark.parametrize("size", [(4, 13), (7, 7), (11, 3), (2, 15), (19, 2)])
def test_feedback_matrix_where_points_lie_between_cells(size):
    labels = torch.randint(0, 2, (1, *size), generator=torch.Generator().manual_seed(1))
    assert_close(feedback_matrix(labels, 5.0, path=True)[0].numpy(), reference.feedback(labels[0].numpy(), 5.0, True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["dino8", "dinov2reg"])
def test_proxyclip_formula(models, tower, guide, name, size):  # noqa: F811
    """Each encoder on its own grid, also in windows that are not square."""
    image, method = sized_image(*size), ProxyCLIP(**guide(name), beta=1.1, gamma=4)
    model = models[12]
    (got,) = model.encode(image[None], [method])
    with torch.inference_mode():
        second = model._second_encoder(model._completed(method))(model.denormalize(image[None]))[0]
    patch = 8 if name == "dino8" else 14
    assert got.shape[1:3] == second.shape[:2] == (size[0] // patch, size[1] // patch)
    assert_close(got[0].numpy(), tower.proxy_features(image.double().numpy(), second.double().numpy(), 1.1, 4))


@pytest.mark.parametrize(
    ("size", "cells"), [((40, 70), 20), ((33, 50), 16), ((1, 24), 16), ((30, 1), 10), ((1, 1), 80)]
)
def test_tlp_formula(size, cells):
    z, text = tlp_input(5, size, 0.5), random_text(5)
    wanted = reference.tlp(*(part.double().numpy() for part in (z, sized_image(*size), text)), cells)
    smooth = smoothed(z, sized_image(*size), text, cells)
    np.testing.assert_allclose(smooth.scores.permute(2, 0, 1).numpy(), wanted, atol=1e-6)
    assert smooth.grid.rows.weights(size[0], "cpu").shape == (size[0], wanted.shape[1])


def test_a_window_without_positive_entries_is_defined():
    """All features nearly alike, so that beta times the mean exceeds even the diagonal: each patch sees itself."""
    second = torch.ones(9, 8) + 1e-3 * torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    assert_close(proxy_attention(second, 1.2, 3).numpy(), np.eye(9))


def test_a_batch_is_its_windows_one_at_a_time(load, guide):  # noqa: F811
    """ProxyCLIP's mean, SFR's maximum and PEARL's R are an image's own."""
    methods = [ProxyCLIP(**guide("dino16")), SFR(NACLIP(), pamr=False), PEARL()]
    model = load(8)
    text = as_classes(random_text(4), [0, 1, 2, 3])
    images = torch.stack([sized_image(96, 48), 3 * sized_image(96, 48).flip(-1)])
    with torch.inference_mode():
        for method, together in zip(methods, model.encode(images, methods, text), strict=True):
            for image, one in zip(images, together, strict=True):
                assert_close(one.numpy(), model.encode(image[None], [method], text)[0][0].numpy())


def test_windows_are_padded_only_for_methods_that_ask(load, guide, monkeypatch):  # noqa: F811
    """Windows of 48 pixels: of 56 for ProxyCLIP; the others get what they get alone, in one pass."""
    proxy, other = ProxyCLIP(**guide("dino8")), NACLIP()
    model = load(8, slide_crop=48, slide_stride=32)
    image, text, seen = sized_image(60, 80), as_classes(random_text(4), [0, 1, 2, 3]), []
    (alone,) = model.similarities([image], text, [other])
    forward = model.image_encoder.forward
    monkeypatch.setattr(
        model.image_encoder,
        "forward",
        lambda images, methods, *rest: seen.append((images.shape[2:], len(methods))) or forward(images, methods, *rest),
    )
    (pairs,) = model.similarities([image], text, [other, proxy, PEARL()])
    assert sorted(seen) == [((48, 48), 2), ((56, 56), 1)]
    torch.testing.assert_close(pairs[0].scores, alone[0].scores)
    assert pairs[0].grid == alone[0].grid
    assert (pairs[0].grid.rows.cells, pairs[1].grid.rows.cells) == (3, 7)
    seen.clear()
    model.settings = replace(model.settings, slide_crop=56)  # for both 64 and 56: neither is the other's multiple
    model.similarities([image], text, [other, proxy])
    assert sorted(seen) == [((56, 56), 1), ((64, 64), 1)]
    seen.clear()
    model.settings = replace(model.settings, slide_crop=112, slide_stride=56)  # a multiple of both
    model.similarities([sized_image(112, 112)], text, [other, proxy])
    assert seen == [((112, 112), 2)]


def test_whole_images_are_seen_by_each_encoder_to_its_last_patch(load, guide):  # noqa: F811
    method = ProxyCLIP(**guide("dino8"))
    model, image = load(8, method=method, slide_crop=0), sized_image(120, 110)
    ((scores,),) = model.similarities([image], as_classes(random_text(4), [0, 1, 2, 3]))
    assert scores.scores.shape == (15, 13, 4)
    assert scores.grid.rows.weights(120, "cpu").shape == (120, 15)


def test_half_precision(load, guide):  # noqa: F811
    methods = [PEARL(), SFR(NACLIP(), pamr=False), ProxyCLIP(**guide("dinov2"))]
    half, full = load(8), load(8)
    half.image_encoder, half.precision = ImageEncoder(cast(half.image_encoder.visual, "fp16")), "fp16"
    text, image = as_classes(random_text(4), [0, 1, 2, 3]), sized_image(112, 112)[None]
    with torch.inference_mode():
        pairs = zip(half.encode(image, methods, text), full.encode(image, methods, text), strict=True)
    for found, wanted in pairs:
        assert found.dtype == torch.float16 and found.isfinite().all()
        # A similarity may be on the other side of ProxyCLIP's threshold.
        assert F.cosine_similarity(found.float(), wanted, dim=-1).min() > 0.98


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"type": "PEARL", "alpha": -1}, "alpha of PEARL must be a number from 0 to 100, not -1"),
        ({"type": "PEARL", "svd": 1}, "svd of PEARL must be True or False, not 1"),
        ({"type": "SFR", "base": "MaskCLIP"}, "base of SFR must be one attention with logits .* MaskCLIP has not"),
        ({"type": "SFR", "base": {"type": "NACLIP", "strategy": "nonly"}}, "NACLIP .strategy=nonly. has not"),
        ("GEM + SFR", "GEM has not"),
        ("NACLIP + SFR + SFR", "NACLIP . SFR has not"),
        ("ProxyCLIP + RCS", "ProxyCLIP has no single one"),
        ("ProxyCLIP + ClearCLIP + SFR", "ProxyCLIP has not"),
        ({"type": "ProxyCLIP", "multiple": 0}, "multiple of ProxyCLIP must be a whole number or None from 1, not 0"),
        ({"type": "ProxyCLIP", "guide": "dino"}, "unknown guide 'dino'; choose from dino-vits8, .*dinov2-vitl14-reg"),
        ({"type": "ProxyCLIP", "guide_weights": "none.pth"}, "checkpoint none.pth for dino-vitb8 does not exist"),
    ],
)
def test_what_cannot_be_is_one_clear_line(load, method, message):  # noqa: F811
    with pytest.raises(UserError, match=message) as error:
        load(12, method=method)
    assert "\n" not in str(error.value)


def test_what_a_method_needs_and_does_not_get_is_said(models):  # noqa: F811
    for method, needs in ((SFR(), "text"), (ProxyCLIP(), "second encoder")):
        with pytest.raises(UserError, match=f"needs {needs}.* which this call does not give it"):
            models[12].image_encoder(sized_image(32, 32)[None], [method])


def test_random_second_encoders_are_the_same_every_time(load, guide):  # noqa: F811
    """And their weights are part of what a method is known by."""
    method = ProxyCLIP(guide(name := "dino16")["guide"], "random")
    image = sized_image(64, 64)[None]
    first, second = (load(8, method=method).encode(image, [method])[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    other = load(8, model_type="ProxyCLIP", **guide(name))
    assert other.method == ProxyCLIP(**guide(name)) != method
    assert other.settings.chosen_method.settings["guide_weights"].endswith("dino16.pth")


def test_the_miniatures_own_options():
    model = ClearCLIP.from_pretrained("miniature", device="cpu")
    options = model.image_encoder.method_options
    assert build_method("NACLIP + RCS + SFR").completed(options).base.layers == (2, 3, 4)
    assert RCS("NACLIP", layers=(1,)).completed(options) == RCS("NACLIP", layers=(1,))
    assert SCCLIP(rho=0.2).completed(options).layers(6) == (4, 1, (1, 2, 3, 4), 0.2)
    results = model.compare(np.zeros((64, 80, 3), np.uint8), ["sky", "tree"], ["ProxyCLIP", "SC-CLIP", "ClearCLIP"])
    assert list(results) == ["ProxyCLIP", "SC-CLIP", "ClearCLIP"]
    chosen = {"RCS": {"lambda_r": 0.4}, "SFR": {"threshold": 0.11, "tau": 1.8}}
    method = build_method("NACLIP + RCS + SFR").with_options(chosen)
    assert method == SFR(RCS(NACLIP(), lambda_r=0.4), 0.11, 1.8)
    assert method.label == "NACLIP + RCS (lambda_r=0.4) + SFR (threshold=0.11, tau=1.8)"


SHARES, FLAGS = st.floats(0, 1), st.booleans()
ATTENTION = st.one_of(
    st.builds(LastBlock, st.sampled_from(list(ATTENTIONS)), st.just(True), FLAGS, st.floats(-2, 2)),
    st.builds(NACLIP, st.sampled_from(["naclip", "kk"]), st.floats(0.5, 9), FLAGS, FLAGS),
    st.builds(PEARL, st.floats(0, 2), st.integers(0, 9), FLAGS, FLAGS, FLAGS),
)
MIXED = st.one_of(ATTENTION, st.builds(RCS, ATTENTION, st.floats(0, 3), SHARES, st.sampled_from([None, [1], (1, 2)])))
LOGITS = MIXED.filter(lambda one: getattr(one, "base", one).has_logits)
ANY_METHOD = st.one_of(
    MIXED,
    st.builds(SFR, LOGITS, SHARES, st.floats(0, 3), SHARES, st.floats(0.5, 9), FLAGS, FLAGS),
    st.builds(ProxyCLIP, st.sampled_from([None, "dino-vits8"]), st.sampled_from([None, "random", "a"]), SHARES, SHARES),
    st.builds(GEM, FLAGS),
    st.builds(SCCLIP, st.integers(0, 3), st.none(), st.sampled_from([None, [1, 2]]), SHARES, SHARES, st.integers(1, 9)),
)


@examples(max_examples=300, deadline=None, derandomize=True, database=None)
@example(one=LastBlock("qq", True, True, 1.0000001), other=LastBlock("qq", True, True, 1.0000002))
@example(one=RCS(NACLIP(sigma=2)), other=RCS(NACLIP(), tau=2.5))
@given(one=ANY_METHOD, other=ANY_METHOD)
def test_labels_tell_methods_apart(one, other):
    """Tables match a run by its method's label: equal ones are equal methods; and plain data brings a method back."""
    assert (one.label == other.label) == (one == other)
    assert build_method(json.loads(json.dumps(one.settings))) == one


def test_methods_of_a_pass_do_not_change_each_other(models):  # noqa: F811
    """They share projections and attentions; options that differ are told apart."""
    names = ("CLIP", "SCLIP", "ClearCLIP", "NACLIP", "ClearCLIP + RCS", "NACLIP + RCS", "NACLIP + RCS + SFR", "PEARL")
    methods = [*map(build_method, names), NACLIP(sigma=2), NACLIP("nonly"), PEARL(0.3), SFR(NACLIP()), LastBlock("kk")]
    text, image = as_classes(random_text(4), [0, 1, 2, 3]), sized_image(48, 64)[None]
    together = models[12].encode(image, methods, text)
    for method, one in zip(methods, together, strict=True):
        assert_close(one.numpy(), models[12].encode(image, [method], text)[0].numpy())
    assert len({one.sum().item() for one in together}) == len(methods)
