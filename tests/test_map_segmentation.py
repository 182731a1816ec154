"""Maps: block by block the labels of the whole, with the raster's coordinates, nodata, palette, names and polygons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from storages import planes, rasterio, some_picture, wide, write_raster

from clearclip import ClearCLIP
from clearclip.map_segmentation import segment_map
from clearclip.utils.errors import UserError

WORDS = ["sky", "hill | mountain", "tree"]
SIZE = (150, 213)


@pytest.fixture(scope="module")
def model(quick_name: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=48, slide_stride=32)


@pytest.fixture
def ortho(tmp_path: Path) -> Path:
    """A raster without data in its upper left corner."""
    picture = np.maximum(some_picture(*SIZE), 1)
    picture[:60, :70] = 0
    write_raster(tmp_path / "ortho.tif", planes(picture), nodata=0)
    return tmp_path / "ortho.tif"


def labels_at_once(model: ClearCLIP, path: Path) -> np.ndarray:
    """Labels where the raster is one picture that is not resized."""
    settings = model.settings
    model.settings = replace(settings, short_side=None)
    try:
        return model.segment(path, WORDS).labels
    finally:
        model.settings = settings


def read_labels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize("block", [32, 64, 96, 160, 1000])
def test_blocks_give_the_labels_of_the_whole(block: int, model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    whole = labels_at_once(model, ortho)
    result = segment_map(model, ortho, WORDS, tmp_path / "labels.tif", block=block)
    labels = read_labels(result.path)
    has_data = labels != 255
    assert not has_data[:60, :70].any() and has_data[60:].all() and has_data[:, 70:].all()
    assert (labels != whole)[has_data].mean() < 1e-4  # batches of another size may decide a tie
    np.testing.assert_array_equal(result.class_pixels, np.bincount(labels[has_data], minlength=3))
    assert sum(result.shares.values()) == pytest.approx(1)


def test_a_map_keeps_what_the_raster_says(model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    result = segment_map(model, ortho, WORDS, tmp_path / "sub" / "labels.tif", polygons=True)
    with rasterio.open(ortho) as raster, rasterio.open(result.path) as dataset:
        assert dataset.crs == raster.crs and dataset.transform == raster.transform and dataset.shape == raster.shape
        assert dataset.nodata == 255 and dataset.dtypes == ("uint8",)
        assert dataset.tags(1)["class_1"] == "hill"
        palette = dataset.colormap(1)
        assert len({palette[label] for label in range(3)}) == 3 and palette[255][3] == 0
        labels, transform = dataset.read(1), dataset.transform
    assert sorted(path.name for path in result.path.parent.iterdir()) == [
        "labels.geojson", "labels.tif", "labels.tif.aux.xml"
    ]  # fmt: skip
    collection = json.loads(result.polygons_path.read_text())
    assert len(collection["features"]) == result.polygon_count > 3
    # The polygons, back in the raster's coordinates and burnt in, are the labels.
    shapes = [
        (rasterio.warp.transform_geom("EPSG:4326", "EPSG:32633", feature["geometry"]), feature["properties"]["label"])
        for feature in collection["features"]
    ]
    burnt = rasterio.features.rasterize(shapes, labels.shape, fill=255, transform=transform)
    assert (burnt != labels).mean() < 1e-3
    names = {feature["properties"]["class"] for feature in collection["features"]}
    assert names == {["sky", "hill", "tree"][label] for label in np.unique(labels) if label != 255}


def test_other_programs_read_the_map(model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    result = segment_map(model, ortho, WORDS, tmp_path / "labels.tif", polygons=True)
    frame = geopandas.read_file(result.polygons_path).to_crs("EPSG:32633")
    with rasterio.open(result.path) as dataset:
        labels, pixel = dataset.read(1), abs(dataset.transform.a * dataset.transform.e)
    areas = frame.dissolve("class").area / pixel
    for label, name in enumerate(("sky", "hill", "tree")):
        assert areas.get(name, 0) == pytest.approx((labels == label).sum(), rel=1e-3)


def test_an_interrupted_map_goes_on(model: ClearCLIP, ortho: Path, tmp_path: Path, monkeypatch) -> None:
    wanted = read_labels(segment_map(model, ortho, WORDS, tmp_path / "wanted.tif", block=64).path)
    predict, calls = model.predict, []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return predict(*arguments, **options)

    monkeypatch.setattr(model, "predict", counted)
    with pytest.raises(KeyboardInterrupt):
        segment_map(model, ortho, WORDS, tmp_path / "labels.tif", block=64)
    assert not (tmp_path / "labels.tif").exists() and (tmp_path / "labels.tif.part").exists()
    segment_map(model, ortho, WORDS, tmp_path / "labels.tif", block=64)
    done = len(calls)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif"), wanted)
    assert not list(tmp_path.glob("labels.tif.part*"))
    assert done < 2 * 12 - 2, "finished blocks are not computed again"
    # Other words are another map: nothing of the first is taken.
    calls[:] = [1, 1]
    with pytest.raises(KeyboardInterrupt):
        segment_map(model, ortho, WORDS, tmp_path / "other.tif", block=64)
    calls.clear()
    monkeypatch.setattr(model, "predict", predict)
    segment_map(model, ortho, WORDS[:2], tmp_path / "other.tif", block=64)
    assert read_labels(tmp_path / "other.tif")[70:, 80:].max() <= 1


def test_bands_and_levels_of_a_map(model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    picture = rasterio.open(ortho).read()
    levels = np.concatenate([picture[::-1].astype(np.uint16) * 16, picture[:1].astype(np.uint16)])
    write_raster(tmp_path / "satellite.tif", levels, nodata=0)
    with pytest.raises(UserError, match=r"has 4 bands, of which no tag says which are colours; .*--bands"):
        segment_map(model, tmp_path / "satellite.tif", WORDS, tmp_path / "a.tif")
    options = dict(bands=(3, 2, 1), levels=(0, 4080))
    found = segment_map(model, tmp_path / "satellite.tif", WORDS, tmp_path / "a.tif", **options)
    wanted = segment_map(model, ortho, WORDS, tmp_path / "b.tif")
    labels = read_labels(wanted.path)
    found_labels = read_labels(found.path)
    assert (labels != found_labels).mean() < 0.01
    stretched = segment_map(
        model, tmp_path / "satellite.tif", WORDS, tmp_path / "c.tif", bands=(3, 2, 1), levels="percentiles", block=64
    )
    assert "(percentiles)" in stretched.remarks[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(settings=dict(slide_crop=0)), "slide_crop=0 takes a whole image"),
        (dict(settings=dict(post="pamr")), "post=pamr smooths over the whole image"),
        (dict(out="a.png"), r"a\.png: a map of labels is a GeoTIFF; use \.tif"),
        (dict(raster="photo.jpg"), r"photo\.jpg is no raster; give a TIFF or JPEG 2000"),
    ],
)
def test_what_cannot_be_a_map(changes: dict, message: str, model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    settings = model.settings
    model.settings = replace(settings, **changes.get("settings", {}))
    try:
        with pytest.raises(UserError, match=message):
            segment_map(
                model, tmp_path / changes.get("raster", "ortho.tif"), WORDS, tmp_path / changes.get("out", "a.tif")
            )
    finally:
        model.settings = settings


def test_a_result_is_saved_as_a_map(model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    """From Python, of a picture that is segmented as pictures are."""
    result = model.segment(ortho, WORDS)
    result.save_map(tmp_path / "labels.tif", polygons=True)
    with rasterio.open(ortho) as raster, rasterio.open(result.save(tmp_path / "again.tif")) as dataset:
        assert dataset.crs == raster.crs and dataset.transform == raster.transform
        np.testing.assert_array_equal(dataset.read(1), result.labels)
    assert json.loads((tmp_path / "labels.geojson").read_text())["features"]
    plain = model.segment(some_picture(), WORDS)
    assert plain.georeference is None
    with rasterio.open(plain.save(tmp_path / "plain.tif")) as dataset:
        assert dataset.crs is None


def test_gdal_s_own_program_reads_names_and_coordinates(model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    import shutil

    if shutil.which("gdalinfo") is None:
        pytest.skip("gdalinfo is not installed")
    result = segment_map(model, ortho, WORDS, tmp_path / "labels.tif")
    said = json.loads(subprocess.run(["gdalinfo", "-json", result.path], capture_output=True, check=True).stdout)
    assert said["geoTransform"] == [500000, 1.5, 0, 5000000, 0, -1.5]
    assert said["bands"][0]["noDataValue"] == 255
    text = subprocess.run(["gdalinfo", result.path], capture_output=True, text=True, check=True).stdout
    assert "0: sky" in text and "1: hill" in text


def test_the_demo_makes_maps(quick_name: str, ortho: Path, tmp_path: Path, capsys) -> None:
    from clearclip.commands.demo import demo_command

    write_raster(tmp_path / "dark.tif", planes(wide(some_picture(40, 50)) // 16), crs=None, transform=None)
    common = ["--model", quick_name, "--classes", "sky, hill, tree", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert demo_command([str(ortho), *common, "--polygons", "--slide-crop", "64", "--slide-stride", "32"]) == 0
    assert "ortho_labels.tif" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "ortho_labels.tif", "ortho_labels.tif.aux.xml", "ortho_labels.geojson"
    }  # fmt: skip
    with pytest.warns(UserWarning, match="so it is nearly black"):
        demo_command([str(tmp_path / "dark.tif"), *common])
    assert demo_command([str(tmp_path / "dark.tif"), *common, "--levels", "0", "4095"]) == 0
    for options, message in (
        (["--compare", "CLIP"], "is a map, of which --compare"),
        (["--coco"], r"is a map, of which --coco .*--polygons \(GeoJSON\)"),
        (["--cvat"], r"is a map, of which --coco and --cvat .*--polygons"),
    ):
        with pytest.raises(UserError, match=message):
            demo_command([str(tmp_path), *common, *options])


def test_the_demo_leaves_maps_that_are_there(quick_name: str, ortho: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from clearclip.commands.demo import demo_command

    common = [str(tmp_path), "--model", quick_name, "--device", "cpu", "--out", str(tmp_path / "out"),
              "--skip-existing", "--slide-crop", "64", "--slide-stride", "32"]  # fmt: skip
    command = [*common, "--classes", "sky, hill, tree"]
    fewer_words = [*common, "--classes", "sky, hill"]
    computed = []
    predict = ClearCLIP.predict
    monkeypatch.setattr(ClearCLIP, "predict", lambda *args, **kwargs: computed.append(1) or predict(*args, **kwargs))
    assert demo_command(command) == 0 and computed
    first_line = capsys.readouterr().out.splitlines()[0]
    computed.clear()
    # The map of labels, which lies in the folder by now, is no image.
    assert demo_command(command) == 0 and not computed
    # The same shares, counted in the file.
    output = capsys.readouterr()
    assert "results of an earlier run: 1" in output.err
    assert output.out.splitlines()[0] == f"{first_line.partition(';')[0]}; is there"
    # Polygons that are asked for later are made of the labels.
    assert demo_command([*command, "--polygons"]) == 0 and not computed
    assert (tmp_path / "out" / "ortho_labels.geojson").is_file()
    # Other words, and a raster that has changed since, are another map.
    assert demo_command(fewer_words) == 0 and computed
    computed.clear()
    assert demo_command(fewer_words) == 0 and not computed
    os.utime(ortho, (1, 1))
    assert demo_command(fewer_words) == 0 and computed


def test_an_existing_map_has_its_polygons(model: ClearCLIP, ortho: Path, tmp_path: Path) -> None:
    options = dict(polygons=True, skip_existing=True)
    written = segment_map(model, ortho, WORDS, tmp_path / "labels.tif", **options)
    existing = segment_map(model, ortho, WORDS, tmp_path / "labels.tif", **options)
    assert existing.was_there and not written.was_there
    assert existing.polygon_count == written.polygon_count > 3
    np.testing.assert_array_equal(existing.class_pixels, written.class_pixels)
    assert existing.shares == written.shares
    (tmp_path / "labels.tif").write_bytes(b"II*\0 is no raster")
    assert not segment_map(model, ortho, WORDS, tmp_path / "labels.tif", **options).was_there


def test_without_rasterio(quick_name: str, ortho: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    model = ClearCLIP.from_pretrained(quick_name, device="cpu")
    with pytest.raises(UserError, match=r"needs rasterio .*pip install 'clearclip\[geo\]'"):
        segment_map(model, ortho, WORDS, tmp_path / "a.tif")
    with pytest.warns(UserWarning, match=r"coordinates are left out: .*needs rasterio"):
        assert model.segment(ortho, WORDS).georeference is None
