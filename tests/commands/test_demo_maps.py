"""Maps beside photographs on demo.py's command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from storages import planes, rasterio, some_picture, write_raster

from clearclip.commands.demo import demo_command

WORDS = ["sky", "tree"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A map without data in a corner, and a photograph."""
    picture = np.maximum(some_picture(70, 90), 1)
    picture[:30, :40] = 0
    write_raster(tmp_path / "ortho.tif", planes(picture), nodata=0)
    Image.fromarray(some_picture(50, 60)).save(tmp_path / "photo.png")
    return tmp_path


def test_the_table_of_shares_has_maps_and_photographs(folder: Path, quick_name: str) -> None:
    common = ["--classes", ",".join(WORDS), "--model", quick_name, "--slide-crop", "64", "--slide-stride", "32"]
    assert demo_command([str(folder), *common, "--out", str(folder / "out")]) == 0
    with open(folder / "out" / "shares.csv", newline="") as file:
        header, of_map, of_photograph = csv.reader(file)
    assert header[-2:] == WORDS
    assert [Path(of_map[0]).name, *of_map[1:3]] == ["ortho.tif", "90", "70"]
    assert [Path(of_photograph[0]).name, *of_photograph[1:3]] == ["photo.png", "60", "50"]
    with rasterio.open(folder / "out" / "ortho_labels.tif") as dataset:
        labels = dataset.read(1)[dataset.read_masks(1) > 0]
    shares = [(labels == label).mean() for label in range(len(WORDS))]
    assert [float(share) for share in of_map[3:]] == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize(("options", "remark"), [("--short-side 64", "own resolution"), ("--format pdf", "a GeoTIFF")])
def test_options_that_a_map_ignores_are_said(options: str, remark: str, folder: Path, quick_name: str) -> None:
    common = ["--classes", "sky,tree", "--model", quick_name, "--slide-crop", "64", "--slide-stride", "32"]
    with pytest.warns(UserWarning, match=remark):
        demo_command([str(folder / "ortho.tif"), *common, "--out", str(folder / "out"), *options.split()])
