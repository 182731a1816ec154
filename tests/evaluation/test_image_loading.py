"""One picture, one meaning: an evaluation sees what ``segment()`` sees, or both say why not."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from colour_model import config, copied, ours, steps, theirs
from mmcv import transforms
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import TRANSFORMS
from PIL import EpsImagePlugin, Image
from storages import GREY, READ, REFUSED, encoded, grey, planes, some_picture, wide, write_raster

from clearclip import UserError
from clearclip.evaluation.image_loading import LoadImageFromFile, images_read_otherwise
from clearclip.utils.images import read_image

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]

PICTURE = some_picture()
_SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = Path(os.environ.get("CLEARCLIP_REAL_SAMPLES", _SHARED / "real_samples"))


def as_evaluated(path: Path, **options) -> np.ndarray:
    """(H, W, 3) RGB as MMSegmentation's pipelines load it."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        loader = TRANSFORMS.build(dict(type="LoadImageFromFile", **options))
    loaded = loader(dict(img_path=str(path)))
    assert loaded["img_shape"] == loaded["ori_shape"] == loaded["img"].shape[:2]
    return loaded["img"][..., ::-1]


@pytest.mark.parametrize("name", READ)
def test_storages_that_mean_the_picture(name: str, tmp_path: Path) -> None:
    write, tolerance = READ[name]
    write(tmp_path / name, PICTURE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = read_image(tmp_path / name)
        evaluated = as_evaluated(tmp_path / name)
    np.testing.assert_array_equal(seen, evaluated)
    assert seen.shape == PICTURE.shape
    assert np.abs(seen.astype(int) - PICTURE).max() <= tolerance


@pytest.mark.parametrize("name", GREY)
def test_storages_that_mean_a_grey_picture(name: str, tmp_path: Path) -> None:
    GREY[name](tmp_path / name, PICTURE)
    seen = read_image(tmp_path / name)
    np.testing.assert_array_equal(seen, grey(PICTURE))
    np.testing.assert_array_equal(seen, as_evaluated(tmp_path / name))


@pytest.mark.parametrize("name", REFUSED)
def test_storages_of_which_nothing_says_what_they_mean(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    write(tmp_path / name, PICTURE)
    for read in (read_image, as_evaluated):
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)


def test_what_a_user_says_of_bands_and_levels(tmp_path: Path) -> None:
    levels = np.round(PICTURE.astype(float) * 4095 / 255).astype(np.uint16)
    write_raster(tmp_path / "planet.tif", planes(levels[..., ::-1], 3000))
    options = dict(bands=(3, 2, 1), levels=(0, 4095))
    for seen in (read_image(tmp_path / "planet.tif", **options), as_evaluated(tmp_path / "planet.tif", **options)):
        np.testing.assert_array_equal(seen, PICTURE)
    one_band = read_image(tmp_path / "planet.tif", bands=[3], levels=(0, 4095))
    np.testing.assert_array_equal(one_band, grey(PICTURE))
    stretched = read_image(tmp_path / "planet.tif", bands=(3, 2, 1), levels="percentiles")
    low, high = np.percentile(levels, (2, 98))
    wanted = np.clip((levels - low) * 255 / (high - low), 0, 255).round()
    assert np.abs(stretched - wanted).max() <= 1
    for wrong, message in ((dict(bands=(1, 2, 9)), "no band 9"), (dict(bands=(0, 1, 2)), "counted from 1"),
                           (dict(bands=(1, 2)), "red, green and blue"), (dict(levels=(9, 1)), "must be below"),
                           (dict(levels="all"), "two numbers")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_image(tmp_path / "planet.tif", **wrong)
    Image.fromarray(PICTURE).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=r"bands are chosen of TIFF and JPEG 2000 only, and .*photo\.png is PNG"):
        read_image(tmp_path / "photo.png", bands=(3, 2, 1))


@pytest.mark.parametrize("name", ["dark.png", "dark.tif", "dark_grey.png", "dark_planes.tif"])
def test_levels_of_12_bits_in_16_are_told_at_both_doors(name: str, tmp_path: Path) -> None:
    levels = np.round(PICTURE.astype(float) * 4095 / 255).astype(np.uint16)
    if "planes" in name:
        write_raster(tmp_path / name, planes(levels), photometric="RGB", interleave="band")
    else:
        cv2.imwrite(str(tmp_path / name), levels[..., 0] if "grey" in name else levels[..., ::-1])
    for read in (read_image, as_evaluated):
        with pytest.warns(UserWarning, match=r"has 16 bits but hardly a level above \d+ .*--levels 0 4095"):
            read(tmp_path / name)


# What OpenCV and Pillow agree on: they are each other's judge.
PLAIN = {
    "jpeg": encoded(PICTURE, "JPEG", quality=90),
    "progressive": encoded(PICTURE, "JPEG", progressive=True),
    "subsampled": encoded(PICTURE, "JPEG", quality=60, subsampling=2),
    "grey_jpeg": encoded(PICTURE[..., 0], "JPEG"),
    "png": encoded(PICTURE, "PNG"),
    "grey_png": encoded(PICTURE[..., 0], "PNG"),
    "png_alpha": encoded(np.dstack([PICTURE, PICTURE[..., 0]]), "PNG"),
    "bmp": encoded(PICTURE, "BMP"),
    "webp": encoded(PICTURE, "WEBP", lossless=True),
    "ppm": encoded(PICTURE, "PPM"),
    "gif": encoded(PICTURE[..., 0], "GIF"),
    "avif": encoded(PICTURE, "AVIF"),
    "tiff": encoded(PICTURE, "TIFF"),
    "tiff_jpeg": encoded(PICTURE, "TIFF", compression="jpeg"),
    "png_16": cv2.imencode(".png", wide(PICTURE) ^ 0x5A)[1].tobytes(),
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_both_decoders_read_alike_stays_bit_for_bit(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PLAIN[name])
    opencv = cv2.imdecode(np.frombuffer(PLAIN[name], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    pillow = np.asarray(Image.open(io.BytesIO(PLAIN[name])).convert("RGB"))
    np.testing.assert_array_equal(opencv, pillow)
    np.testing.assert_array_equal(as_evaluated(path), opencv)
    np.testing.assert_array_equal(read_image(path), opencv)


@pytest.mark.skipif(not REAL.is_dir(), reason="no real samples here (CLEARCLIP_REAL_SAMPLES)")
def test_published_photographs_are_read_as_opencv_reads_them() -> None:
    photographs = [*REAL.rglob("*.jpg"), *REAL.rglob("*_leftImg8bit.png")]
    assert photographs
    for path in photographs:
        opencv = cv2.imread(str(path))[..., ::-1]
        np.testing.assert_array_equal(as_evaluated(path), opencv, err_msg=path.name)
        np.testing.assert_array_equal(read_image(path), opencv, err_msg=path.name)


def test_modes_that_pillow_stores(tmp_path: Path) -> None:
    """OpenCV's pixels stay for CMYK, palettes and grey of 16 bits, which are read so at both doors."""
    image = Image.fromarray(PICTURE)
    greys = Image.fromarray((wide(PICTURE)[..., 0]) ^ 0x5A)
    for name, made in (("cmyk.jpg", image.convert("CMYK")), ("palette.png", image.quantize(40)), ("grey.png", greys),
                       ("palette.tif", image.quantize(40)), ("cmyk.tif", image.convert("CMYK"))):  # fmt: skip
        made.save(tmp_path / name)
        opencv = cv2.imread(str(tmp_path / name))[..., ::-1]
        np.testing.assert_array_equal(as_evaluated(tmp_path / name), opencv, err_msg=name)
        np.testing.assert_array_equal(read_image(tmp_path / name), opencv, err_msg=name)


def test_orientation_is_followed_unless_the_config_says_no(tmp_path: Path) -> None:
    READ["turned_6_uint16.tif"][0](tmp_path / "a.tif", PICTURE)
    stored = as_evaluated(tmp_path / "a.tif", color_type="color_ignore_orientation")
    np.testing.assert_array_equal(stored, np.rot90(PICTURE))
    one_channel = as_evaluated(tmp_path / "a.tif", color_type="grayscale")
    np.testing.assert_array_equal(one_channel[:, ::-1], cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY))


def test_tifffile_s_order_of_colours(tmp_path: Path) -> None:
    """MMCV hands on what tifffile gives, red first, where its other decoders have blue first."""
    write_raster(tmp_path / "a.tif", planes(PICTURE))
    red_first = mmcv.imread(str(tmp_path / "a.tif"), backend="tifffile")
    np.testing.assert_array_equal(red_first, PICTURE)
    np.testing.assert_array_equal(as_evaluated(tmp_path / "a.tif", imdecode_backend="tifffile"), PICTURE)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n")
    for backend in ("cv2", "pillow"):
        with pytest.raises(UserError, match="of a known kind"):
            as_evaluated(tmp_path / "a.jpg", imdecode_backend=backend)
        missing = LoadImageFromFile(ignore_empty=True, imdecode_backend=backend)
        assert missing(dict(img_path=str(tmp_path / "a.jpg"))) is None


def test_a_run_s_facts_can_name_what_is_read_otherwise(tmp_path: Path) -> None:
    for name in ("rgb.tif", "near_infrared.tif", "uint16.tif"):
        READ[name][0](tmp_path / name, PICTURE)
    Image.fromarray(PICTURE).save(tmp_path / "a.jpg")
    counted = images_read_otherwise([*tmp_path.iterdir(), tmp_path / "missing.png"])
    assert counted == {
        "TIFF: 3 band(s) of 16 bits": 1,
        "TIFF: a fourth band, by which OpenCV multiplies colours": 1,
    }


def test_the_mmcv_class_in_a_config_becomes_ours(tmp_path: Path) -> None:
    from clearclip.evaluation.checked_dataset import CheckedDataset

    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    READ["near_infrared.tif"][0](tmp_path / "images" / "a.tif", PICTURE)
    Image.fromarray(np.zeros(PICTURE.shape[:2], np.uint8)).save(tmp_path / "masks" / "a.png")
    steps = [dict(type=transforms.LoadImageFromFile), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
    settings = Config(dict(dataset=dict(
        type="BaseSegDataset", data_root=str(tmp_path), data_prefix=dict(img_path="images", seg_map_path="masks"),
        img_suffix=".tif", metainfo=dict(classes=["a", "b"]), pipeline=steps,
    ))).dataset  # fmt: skip
    dataset = CheckedDataset(settings)
    np.testing.assert_array_equal(dataset[0]["inputs"].numpy().transpose(1, 2, 0)[..., ::-1], PICTURE)
    np.testing.assert_array_equal(dataset.image(0), PICTURE)


def test_images_beyond_pillow_s_limit(data, clip, tmp_path, monkeypatch):
    """OpenCV reads them, and their masks."""
    cfg = config(data)
    wanted = theirs(cfg, tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(data / "images" / "0.png")
    np.testing.assert_array_equal(ours(cfg, tmp_path, clip), wanted)


def test_postscript_is_not_opened(data, clip, tmp_path, monkeypatch):
    """Pillow would start Ghostscript for it."""

    def started(*_arguments, **_options):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    for folder in ("images", "masks"):
        root = copied(data, tmp_path / folder)
        Image.new("L", (36, 30)).save(root / folder / "0.png", format="EPS")
        cfg = config(root, pipeline=[dict(type="LoadImageFromFile", imdecode_backend="pillow"), *steps()[1:]])
        with pytest.raises(UserError, match=rf"{folder}/0\.png cannot be read.* of a known kind"):
            ours(cfg, tmp_path, clip)
