"""PEARL, SFR, TLP and ProxyCLIP: against their releases' recorded outputs, and against their formulas in loops.

``release/pearl.npz``, ``sfr.npz`` and ``proxyclip.npz`` have, under ``setting|HxW|what``, what the authors' code
computes in fp32 for one window or one image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from test_family import assert_close, features, load, models, tower  # noqa: F401
from tiny import named_weights, sized_image
from torch import Tensor

from clearclip import ClearCLIP
from clearclip.methods import NACLIP, PEARL, RCS, SFR, LastBlock, Method, ProxyCLIP
from clearclip.methods.pearl import newton_schulz
from clearclip.methods.proxyclip import proxy_attention
from clearclip.methods.sfr import feedback_matrix
from clearclip.text import ClassWords, TextFeatures
from clearclip.windows import WindowGrid, tlp

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
    keep = {"residual": words[1] == "vanilla", "ffn": words[1] == "vanilla"}
    if words[2] == "vanilla":
        method = LastBlock("qk", **keep)
    else:
        alpha = 0 if "nokk" in words else float(words[3].removeprefix("a"))
        method = PEARL(alpha, steps=12 if "iters12" in words else 5, svd="svd" in words, **keep)
    got = features(models[int(words[0][1:])], sized_image(*size)[None], method)[0].reshape(-1, 64)
    assert_close(got, PEARLS[key])


def test_recorded_rotation():
    """R of the recorded M."""
    (key,) = (key for key in PEARLS.files if key.endswith("|96x96|M"))
    assert_close(newton_schulz(torch.from_numpy(PEARLS[key])).numpy(), PEARLS[key.removesuffix("M") + "R"])


def tlp_input(words: int, size: tuple[int, int], amplitude: float) -> Tensor:
    """The recordings' cosines, (words, H, W)."""
    rng = np.random.default_rng(words * 1000000 + size[0] * 1000 + size[1])
    coarse = rng.standard_normal((1, words, size[0] // 8 + 2, size[1] // 8 + 2)).astype(np.float32)
    return F.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear")[0] * amplitude


@pytest.mark.parametrize("setting", sorted({key.rpartition("|")[0] for key in PEARLS.files if key.startswith("TLP")}))
def test_recorded_tlp(setting):
    kind, (words, cells, amplitude), size = setting.split("|")[0], *parse(setting + "|")[:2]
    z = tlp_input(int(words[1:]), size, float(amplitude[3:]))
    text, image, grid = random_text(len(z)), sized_image(*size), WindowGrid.of(size, 0, 0, (1, 1))
    smooth, place = tlp.propagate(z.permute(1, 2, 0), grid, image, text, int(cells[4:]))
    out = F.interpolate(smooth.double().permute(2, 0, 1)[None], size=size, mode="bilinear")[0]
    assert [place.rows.cells, place.columns.cells] == list(smooth.shape[:2])
    step = [max(1, round(length / int(cells[4:]))) for length in size]
    pooled = [F.avg_pool2d(part.double()[None], step)[0] for part in (z, image)]
    data, across, down = tlp._system(pooled[0].permute(1, 2, 0), pooled[1], text.double())
    found = {"sdiag": tlp.own_share(text), "C": data, "wh": across, "wv": down, "out": out}
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
def test_recorded_images_with_tlp(load, key):  # noqa: F811
    (case, post, thd), size, _ = parse(key)
    crop, stride, ties = IMAGES[case]
    dense = torch.from_numpy(PEARLS["PA|L8-reduced-pearl-a0.08|96x144|features"])
    words = dense[[index * len(dense) // 8 for index in range(8)]] - dense.mean(dim=0)
    text = as_classes(F.normalize(words, dim=-1), [0, 0, 1, 2, 3, 3, 3, 4])
    model = load(
        8,
        method="PEARL",
        slide_crop=crop,
        slide_stride=stride,
        logit_scale=40,
        prob_thd=float(thd[3:]),
        post="tlp" if post == "tlp" else None,
        tlp_grid=16,
    )
    ((labels, _),) = model.predict([sized_image(*size)], text, [size])
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


@pytest.fixture
def guide(monkeypatch, tmp_path):
    """Options of ProxyCLIP for one of :data:`GUIDES`: timm builds tiny ones, and their weights are in a file."""
    create = timm.create_model

    def guide(name: str) -> dict[str, str]:
        own, side = GUIDES[name]
        small = dict(embed_dim=96, depth=4, num_heads=3, img_size=side)
        monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **small, **options))
        from clearclip.backbones.dino import SECOND_ENCODERS

        # The shapes and names of the releases' files, which timm converts.
        state = timm.create_model(SECOND_ENCODERS[own]).state_dict()
        if "reg_token" in state:
            state["register_tokens"] = state.pop("reg_token")
            state["pos_embed"] = torch.zeros(1, 1 + state["pos_embed"].shape[1], 96)
        drawn = {}
        for key, value in state.items():
            drawn_as = ".".join(["vfm", *(RENAMED.get(part, part) for part in key.split("."))])
            drawn[key] = named_weights({drawn_as: value})[drawn_as]
        if name.startswith("dinov2"):
            drawn["mask_token"] = torch.zeros(1, 96)
        torch.save(drawn, tmp_path / f"{name}.pth")
        return {"guide": own, "guide_weights": str(tmp_path / f"{name}.pth")}

    return guide


@pytest.mark.parametrize("key", [key for key in PROXIES.files if not key.startswith("segmentor")])
def test_recorded_proxyclip(load, guide, key):  # noqa: F811
    words, size, what = parse(key)
    beta, gamma = (1.0, 6.0) if "gamma6" in words else (1.2, 3.0)
    method = ProxyCLIP(**guide(words[0]), beta=beta, gamma=gamma)
    model, image = load(8, method=method), sized_image(*size)[None]
    with torch.inference_mode():
        second = next(iter(model.second_encoders.values()))(model.denormalize(image))
        found = {
            "vfm": second[0].flatten(0, 1),
            "attn": proxy_attention(second[0].flatten(0, 1), beta, gamma),
            "features": model.encode(image, [method])[0][0].flatten(0, 1),
        }
    assert_close(found[what].numpy(), PROXIES[key])


@pytest.mark.parametrize("key", [key for key in PROXIES.files if key.startswith("segmentor")])
def test_recorded_images_by_proxyclip(load, guide, key):  # noqa: F811
    (_, name, tag, crop, stride), size, what = parse(key)
    original = {"pad": (75, 101)}.get(tag, size)
    windows = {"slide_crop": int(crop[4:]), "slide_stride": int(stride[6:])}
    thd = float(what.removeprefix("labels-thd")) if what.startswith("labels") else 0.0
    model = load(8, method=ProxyCLIP(**guide(name)), logit_scale=40, prob_thd=thd, **windows)
    text, image = as_classes(random_text(8), [0, 0, 1, 2, 2, 3, 4, 5]), sized_image(*size)
    if what.startswith("labels"):
        ((labels, _),) = model.predict([image], text, [original])
        np.testing.assert_array_equal(labels.numpy(), PROXIES[key])
    else:
        ((similarity, grid),) = model.similarities([image], text)
        rows, columns = grid.rows.weights(original[0], "cpu"), grid.columns.weights(original[1], "cpu")
        assert_close((rows @ similarity.permute(2, 0, 1) @ columns.T)[:, ::3, ::3].numpy(), PROXIES[key])
