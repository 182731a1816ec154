"""NACLIP, RCS, SC-CLIP and PAMR: against their releases' recorded outputs, and against their formulas in loops.

``release/family.npz`` has, under ``METHOD|setting|HxW|what``, what the authors' code computes in fp32 for one window.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import reference
import torch
import torch.nn.functional as F
from tiny import TINY, named_weights, sized_image
from torch import Tensor

from clearclip import ClearCLIP, UserError
from clearclip.backbones.casting import cast
from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.methods import NACLIP, RCS, SCCLIP, Context, LastBlock, Method, build_method
from clearclip.methods.outliers import outlier_scores, outliers, repair
from clearclip.methods.scclip import softmax_above_mean
from clearclip.results.table_definitions import FAMILY
from clearclip.windows import ImageContext, Readout, ScoreMap, WindowGrid, pamr

RECORDED = np.load(Path(__file__).with_name("release") / "family.npz")
SCLIP = LastBlock("qq+kk", residual=True, ffn=True)
HALF_DEPTH = {"pre": 5, "post": 2, "summed": (2, 3, 4, 5), "rho": 0.3}  # of the recordings with 8 blocks
#: Pixels of windows: square, wide, one row of patches, 4 patches, a single one.
SIZES = [(64, 64), (48, 80), (16, 96), (32, 32), (16, 16)]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ClearCLIP]:
    """The tiny model with so many blocks, and options."""
    folders = {}

    def load(layers: int, **options) -> ClearCLIP:
        if layers not in folders:
            folder = folders[layers] = tmp_path_factory.mktemp(f"blocks{layers}")
            config = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "layers": layers}}
            (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
            state = named_weights(open_clip.model.CLIP(**config).state_dict())
            torch.save(state, folder / "open_clip_pytorch_model.bin")
        return ClearCLIP.from_pretrained(f"local-dir:{folders[layers]}", device="cpu", **options)

    return load


@pytest.fixture(scope="module")
def models(load) -> dict[int, ClearCLIP]:
    return {layers: load(layers) for layers in (8, 12)}


@pytest.fixture(scope="module")
def tower(models) -> reference.Tower:
    state = {f"visual.{name}": value for name, value in models[12].image_encoder.visual.state_dict().items()}
    return reference.Tower(state, heads=4, patch=16, quick_gelu=True)


@torch.inference_mode()
def features(model: ClearCLIP, images: Tensor, method: Method) -> np.ndarray:
    return model.image_encoder(images, [method])[0].numpy()


@torch.inference_mode()
def last_inputs(model: ClearCLIP, images: Tensor) -> Tensor:
    """Patches before the last block."""
    encoder = model.image_encoder
    x = encoder.tokens(images, "scale_factor")
    for index in range(len(encoder.blocks) - 1):
        x = encoder.run_block(index, x, encoder.grid(images))
    return x[:, 1:]


def assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def recorded_method(name: str, setting: str, patches: int) -> Method:
    """The method that a key of the recordings describes."""
    words = setting.split("-")
    if name == "NACLIP":
        keep, strategy = words[1] == "vanilla", words[2]
        if strategy in ("csa", "vanilla"):
            return LastBlock({"csa": "qq+kk", "vanilla": "qk"}[strategy], keep, keep)
        return NACLIP(strategy, float(words[3].removeprefix("std")) if len(words) > 3 else 5.0, keep, keep)
    if name == "ResCLIP":
        base = {"resclip": NACLIP(), "clearclip": LastBlock()}[words[2]]
        return RCS(base) if words[-1] == "rcs" else base
    options = dict(HALF_DEPTH) if words[0] == "L8" else {}
    options |= {"rho": 0.0} if "rescls0" in words else {"beta": 0.2} if "beta0.2" in words else {}
    return SCCLIP(**options, neighbours=8 if patches <= 30 else 30)


@pytest.mark.parametrize("key", [key for key in RECORDED.files if not key.startswith("PAMR")])
def test_recorded(models, key):
    name, setting, size, what = key.split("|")
    height, width = map(int, size.split("x"))
    model, image = models[12 if setting.startswith("L12") else 8], sized_image(height, width)[None]
    method = recorded_method(name, setting, height * width // 256)
    if what == "features":
        assert_close(features(model, image, method)[0].reshape(-1, 64), RECORDED[key])
    elif what == "lof":
        assert_close(outlier_scores(last_inputs(model, image), method.neighbours)[0].numpy(), RECORDED[key])
    else:
        found = outliers(last_inputs(model, image), method.neighbours)[0].nonzero().flatten()
        assert found.tolist() == sorted(RECORDED[key].astype(int))


def refined(image, maps):
    """PAMR of maps (K, H, W)."""
    return pamr.NeighbourWeights(image, (8, 16)).refine(maps.permute(1, 2, 0), 10).permute(2, 0, 1)


def test_recorded_pamr():
    (key,) = (key for key in RECORDED.files if key.startswith("PAMR"))
    dense = F.normalize(torch.from_numpy(RECORDED["NACLIP|L8-reduced-naclip-std5|64x64|features"]), dim=-1)
    text = F.normalize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    logits = F.interpolate((dense @ text.T).T.view(1, 8, 4, 4), size=(64, 64), mode="bilinear")[0]
    assert_close(refined(sized_image(64, 64), logits).numpy(), RECORDED[key])


FORMULAS = {
    "NACLIP": (NACLIP(), "naclip_features", {}),
    "NACLIP, all options": (
        NACLIP("naclip", 1.5, residual=True, ffn=False), "naclip_features", {"sigma": 1.5, "residual": True}
    ),
    "nonly": (NACLIP("nonly", 2), "naclip_features", {"strategy": "nonly", "sigma": 2}),
    "kk": (NACLIP("kk", ffn=True), "naclip_features", {"strategy": "kk", "ffn": True}),
    "ClearCLIP + RCS": (RCS(LastBlock()), "rcs_features", {"base": "qq"}),
    "NACLIP + RCS": (RCS("NACLIP", layers=[1, 4]), "rcs_features", {"base": "naclip", "layers": (1, 4)}),
    "SCLIP + RCS": (
        RCS(SCLIP, tau=1.5, lambda_r=0.6), "rcs_features", {"base": "qq+kk", "tau": 1.5, "lambda_r": 0.6}
    ),
    "SC-CLIP": (SCCLIP(), "scclip_features", {"pre": 8, "post": 3, "summed": range(3, 10), "rho": 0.3}),
    "SC-CLIP, all options": (
        SCCLIP(10, 0, (2, 7), 0.1, beta=0.7, neighbours=3),
        "scclip_features", {"pre": 10, "post": 0, "summed": (2, 7), "rho": 0.1, "beta": 0.7, "neighbours": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(models, tower, name, size):
    method, formula, options = FORMULAS[name]
    image = sized_image(*size)
    wanted = getattr(tower, formula)(image.double().numpy(), **options)
    assert_close(features(models[12], image[None], method)[0], wanted)


@pytest.mark.parametrize("method", [NACLIP("nonly"), NACLIP(), RCS(NACLIP()), SCCLIP()], ids=lambda one: one.label)
def test_a_batch_is_its_windows_one_at_a_time(models, method):
    images = torch.stack([sized_image(96, 48), 3 * sized_image(96, 48).flip(-1), sized_image(48, 96).mT])
    together = features(models[12], images, method)
    for image, one in zip(images, together, strict=True):
        assert_close(one, features(models[12], image[None], method)[0])


def test_layers_of_other_depths():
    """ViT-L/14's, and the miniature's."""
    assert SCCLIP().layers(24) == (16, 6, (8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18), 0.1)
    assert sorted(SCCLIP().required_blocks(24)) == [7, *range(9, 20)]
    assert RCS().required_blocks(24) == RCS().required_blocks(10) == (5, 6, 7, 8)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ClearCLIP + RCS", "needs at least 10 blocks, but this model has 8"),
        ("SC-CLIP", "12 or 24 blocks only, but this model has 8; give it pre, post, summed and rho"),
        ({"type": "SC-CLIP", **HALF_DEPTH, "pre": 7}, "can read blocks 0 to 6 of this model, not 7"),
        ("GEM + RCS", "GEM has no single one"),
        ("SC-CLIP + RCS", "SC-CLIP has no single one"),
        ({"type": "RCS", "layers": []}, "layers of RCS must be block numbers"),
        ({"type": "RCS", "lambda_r": 2}, "lambda_r of RCS must be a number from 0 to 1"),
        ({"type": "NACLIP", "sigma": 0}, "sigma of NACLIP must be a number from 0.001"),
        ({"type": "NACLIP", "strategy": "gav"}, "unknown strategy of NACLIP 'gav'.*nonly"),
        ({"type": "SC-CLIP", "neighbours": 0}, "neighbours of SC-CLIP must be"),
    ],
)
def test_what_cannot_be_is_one_clear_line(load, method, message):
    with pytest.raises(UserError, match=message) as error:
        load(8, method=method)
    assert "\n" not in str(error.value)


def test_names_and_plain_data_bring_the_method_back():
    for method in (*map(build_method, FAMILY), build_method("SCLIP + RCS"), RCS(NACLIP("kk"))):
        assert build_method(json.loads(json.dumps(method.settings))) == method
        assert json.loads(json.dumps(method.settings)) == method.settings
    assert [build_method(name).label for name in FAMILY] == list(FAMILY)
    assert RCS(NACLIP(), layers=(2, 3)).label == "NACLIP + RCS (layers=2,3)"
    assert build_method("SCLIP + RCS").keeping(False).base == LastBlock("qq+kk")


def test_equal_patches_make_no_outliers_and_no_nan(models):
    equal = torch.randn(1, 1, 128).expand(2, 50, 128) * 30
    assert not outliers(equal, 30).any()
    almost = equal + 1e-5 * torch.randn(2, 50, 128)
    assert outlier_scores(almost, 30).isfinite().all()
    similarity = torch.ones(1, 7, 7) - 1e-7 * torch.rand(1, 7, 7)
    assert softmax_above_mean(similarity).isfinite().all()
    encoder = models[12].image_encoder
    tokens = torch.ones(1, 50, 128)
    context = Context((7, 7), 1, dict.fromkeys(range(12), tokens))
    with torch.inference_mode():
        assert SCCLIP()(encoder.parts((7, 7)), tokens, context).isfinite().all()


def test_an_outlier_among_outliers_stays():
    patches, outlier = torch.randn(1, 6, 4), torch.tensor([[True, True, False, True, True, False]])
    wanted = reference.repaired(patches[0].numpy(), [0, 1, 3, 4], (2, 3))
    np.testing.assert_allclose(repair(patches, outlier, (2, 3))[0].numpy(), wanted, atol=1e-6)
    assert (wanted[0] == patches[0, 0].numpy()).all()


def test_half_precision_does_not_overflow(load, models):
    """Squares of large tokens exceed what fp16 holds; the choice of outliers must not notice."""
    patches = 40 * torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(0)).half()
    assert patches.square().sum(-1).isinf().any()
    torch.testing.assert_close(outlier_scores(patches, 30), outlier_scores(patches.float(), 30))
    half, image = ImageEncoder(cast(load(12).image_encoder.visual, "fp16")), sized_image(64, 96)[None]
    for method in (NACLIP(), NACLIP("nonly"), RCS(), SCCLIP()):
        with torch.inference_mode():
            found = half(image, [method])[0].numpy()
        assert found.dtype == np.float16
        wanted = features(models[12], image, method)
        np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("size", [(23, 31), (1, 40), (50, 7)])
def test_pamr_formula(size):
    image, maps = sized_image(*size), torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    wanted = reference.pamr(maps.double().numpy(), image.double().numpy())
    assert_close(refined(image, maps).numpy(), wanted)


@pytest.mark.parametrize(("pixels", "at_once"), [(1, 8), (2 << 20, 1), (1, 1)])
def test_labels_with_pamr(monkeypatch, pixels, at_once):
    """In bands and few words at a time, the labels are those of all words at full size."""
    size = (400, 60)
    grid = WindowGrid.of(size, 48, 24, (16, 16))
    shape = (len(grid.rows.starts) * grid.rows.cells, len(grid.columns.starts) * grid.columns.cells, 5)
    similarity = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    words, image = torch.tensor([0, 0, 1, 2, 2]), sized_image(*size)
    logits = grid.rows.weights(size[0], "cpu") @ similarity.permute(2, 0, 1) @ grid.columns.weights(size[1], "cpu").T
    probabilities = (50 * refined(image, logits)).softmax(dim=0)
    wanted = torch.stack([probabilities[words == label].amax(dim=0) for label in range(3)])
    monkeypatch.setattr(pamr, "PIXELS_AT_ONCE", pixels)
    monkeypatch.setattr(pamr, "WORDS_AT_ONCE", at_once)
    monkeypatch.setattr(pamr, "MAP_BYTES", {"cpu": 1})
    scores = pamr.PAMR()(ScoreMap(similarity, grid), ImageContext(image, size, torch.ones(5, 8), words))
    torch.testing.assert_close(Readout(50).probabilities(scores, size, words), wanted, atol=1e-4, rtol=0)
    for threshold in (0.0, 0.5):
        expected = wanted.argmax(dim=0).masked_fill(wanted.amax(dim=0) < threshold, 0)
        found = Readout(50, threshold).labels(scores, size, words)
        assert (found != expected).float().mean() < 1e-3
        assert len(found.unique()) == 3


def test_segment_with_pamr(load):
    """What segment() gives is PAMR by the image itself; probabilities belong to the labels; it is another run."""
    model, rng = load(8, post="pamr", short_side=None, slide_crop=64, slide_stride=32), np.random.default_rng(0)
    photo = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    found = model.segment(photo, ["sky", "hill, mountain", "grass"])
    image, text = model.normalize(photo), model.encode_text(["sky", "hill, mountain", "grass"])
    ((scores,),) = model.similarities([image], text)
    size = photo.shape[:2]
    refined_scores = pamr.PAMR()(scores, ImageContext(image, size, text.features, text.word_to_class))
    np.testing.assert_array_equal(found.labels, Readout().labels(refined_scores, size, text.word_to_class))
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.labels)
    assert (found.labels != Readout().labels(scores, size, text.word_to_class).numpy()).any()
    (((labels, _),),) = model.predict([image], text, [photo.shape[:2]])
    np.testing.assert_array_equal(found.labels, labels)
    assert model.settings.facts()["post"] == "pamr"
