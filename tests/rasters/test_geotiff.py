"""Label maps as GeoTIFF, read by rasterio; and which files are such maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from storages import GEOREFERENCE, planes, rasterio, some_picture, write_raster

from clearclip.rasters.georeference import Georeference, read_georeference
from clearclip.rasters.geotiff import is_label_map, label_type, read_label_map, write_label_map
from clearclip.utils.errors import UserError

NAMES = ["sky", "hill & dale", "tree"]
COLOURS = np.array([[1, 2, 3], [40, 50, 60], [255, 254, 253]], np.uint8)


@pytest.mark.parametrize("size", [(30, 41), (1100, 530)])
def test_strips_become_a_map(size: tuple[int, int], tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, size).astype(np.uint8)
    labels[:5, :7] = 255
    strips = np.split(labels, [1, 20, 29])
    path = write_label_map(tmp_path / "a.tif", strips, size, NAMES, COLOURS, digest="abc")
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), labels)
        assert dataset.nodata == 255 and dataset.crs is None
        assert [dataset.colormap(1)[label][:3] for label in range(3)] == [tuple(colour) for colour in COLOURS.tolist()]
        assert dataset.tags(1)["class_1"] == "hill & dale"
    assert "<Category>hill &amp; dale</Category>" in (tmp_path / "a.tif.aux.xml").read_text()
    existing = read_label_map(path, 3)
    assert existing.digest == "abc"
    assert existing.class_pixels.tolist() == np.bincount(labels[labels != 255], minlength=3).tolist()
    assert is_label_map(path)


def test_coordinates_are_handed_on(tmp_path: Path) -> None:
    write_raster(tmp_path / "raster.tif", planes(some_picture()))
    georeference = read_georeference(tmp_path / "raster.tif")
    assert georeference.transform == tuple(GEOREFERENCE["transform"])[:6]
    labels = np.zeros((45, 67), np.uint8)
    write_label_map(tmp_path / "a.tif", [labels], labels.shape, NAMES, COLOURS, georeference)
    assert read_georeference(tmp_path / "a.tif") == georeference
    points = [rasterio.control.GroundControlPoint(row, row, 10.0 + row, 50.0 - row) for row in (0, 10, 40)]
    by_points = Georeference(georeference.crs, (1, 0, 0, 0, 1, 0), points)
    write_label_map(tmp_path / "b.tif", [labels], labels.shape, NAMES, COLOURS, by_points)
    with rasterio.open(tmp_path / "b.tif") as dataset:
        assert [(point.row, point.x, point.y) for point in dataset.gcps[0]] == [
            (point.row, point.x, point.y) for point in points
        ]


def test_other_files_are_no_label_maps(tmp_path: Path) -> None:
    write_raster(tmp_path / "raster.tif", planes(some_picture()))
    (tmp_path / "damaged.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    (tmp_path / "text.tif").write_text("CLEARCLIP_LABELS_OF")
    for name in ("raster.tif", "damaged.tif", "text.tif", "absent.tif"):
        assert not is_label_map(tmp_path / name), name
    assert read_label_map(tmp_path / "damaged.tif", 3) is None
    assert read_label_map(tmp_path / "absent.tif", 3) is None
    assert read_label_map(tmp_path / "raster.tif", 3).digest == ""


def test_many_classes_and_places(tmp_path: Path) -> None:
    assert label_type(255) == (np.uint8, 255) and label_type(256) == (np.uint16, 65535)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_label_map(tmp_path / "file" / "a.tif", [np.zeros((4, 4), np.uint8)], (4, 4), NAMES, COLOURS)
