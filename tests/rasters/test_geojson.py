"""Areas of a label map as polygons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from storages import rasterio

from clearclip.rasters.geojson import count_polygons, write_polygons
from clearclip.rasters.geotiff import write_label_map


def test_areas_burnt_in_again_are_the_labels(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[3:9, 4:12] = 1
    labels[5:7, 6:8] = 0  # a hole
    labels[15:] = 255
    colours = np.array([[1, 2, 3], [16, 32, 48]], np.uint8)
    write_label_map(tmp_path / "a.tif", [labels], labels.shape, ["sky", "tree"], colours)
    count = write_polygons(tmp_path / "a.tif", tmp_path / "a.geojson", ["sky", "tree"], colours)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert len(features) == count == count_polygons(tmp_path / "a.geojson") == 3
    assert {tuple(feature["properties"].values()) for feature in features} == {
        ("sky", 0, "#010203"), ("tree", 1, "#102030")
    }  # fmt: skip
    shapes = [(feature["geometry"], feature["properties"]["label"]) for feature in features]
    np.testing.assert_array_equal(rasterio.features.rasterize(shapes, labels.shape, fill=255), labels)


def test_a_map_without_data_has_no_polygons(tmp_path: Path) -> None:
    labels = np.full((4, 4), 255, np.uint8)
    colours = np.zeros((1, 3), np.uint8)
    write_label_map(tmp_path / "a.tif", [labels], labels.shape, ["sky"], colours)
    assert write_polygons(tmp_path / "a.tif", tmp_path / "a.geojson", ["sky"], colours) == 0
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert count_polygons(tmp_path / "a.geojson") == 0
