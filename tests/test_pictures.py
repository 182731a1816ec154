"""The pictures: colours that can be told apart, the right pixels in the right colours, no clipped text."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearclip.errors import UserError
from clearclip.pictures import (
    class_palette,
    colour_map,
    compare_picture,
    evaluation_picture,
    grid_picture,
    heat_map,
    heat_picture,
    overlay,
    palette,
    png_bytes,
    result_picture,
    save_image,
    share_text,
)
from clearclip.pictures.colours import text_colour
from clearclip.pictures.lettering import font, shorten
from clearclip.pictures.sheet import LegendEntry, Panel, compose, fit, resize_labels
from clearclip.segmentation import Segmentation
from clearclip.text import ClassWords, TextFeatures
from clearclip.windows import WindowGrid


def make_result(image: np.ndarray, names: list[str], seed: int = 0, prob_thd: float = 0.0) -> Segmentation:
    """A result of random similarities: 16-pixel windows every 8 pixels, patches of 4 pixels."""
    classes = ClassWords.parse(names)
    grid = WindowGrid.of(image.shape[:2], 16, 8, (4, 4))
    windows = torch.rand(grid.count, *(axis.cells for axis in (grid.rows, grid.columns)), len(classes.words),
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    text = TextFeatures(classes, torch.zeros(len(classes.words), 2), torch.tensor(classes.word_to_class))
    return Segmentation(image, grid.join(windows), grid, text, logit_scale=50.0, prob_thd=prob_thd)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)


def cie_lab(colours: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65), another space than the one in which the colours were chosen: (N, 3)."""
    linear = np.array(
        [[v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in row / 255] for row in colours]
    )
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    f = np.cbrt(np.maximum(xyz / (0.9505, 1.0, 1.089), 0.0089))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def red_green_blind(colours: np.ndarray) -> np.ndarray:
    """Red and green confused outright: each replaced by their luminance-weighted mean, (N, 3)."""
    mixed = colours.astype(float).copy()
    mixed[:, :2] = (0.2126 * mixed[:, :1] + 0.7152 * mixed[:, 1:2]) / 0.9278
    return mixed


@pytest.mark.parametrize(("count", "normal", "blind"), [(7, 25, 14), (12, 25, 12), (21, 20, 2)])
def test_colours_are_distinct(count: int, normal: float, blind: float) -> None:
    """2.3 is a just noticeable difference of CIE L*a*b*."""
    for colours, least in ((palette(count), normal), (red_green_blind(palette(count)), blind)):
        lab = cie_lab(colours)
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e9 * np.eye(count)
        assert distances.min() > least


def test_hundreds_of_colours() -> None:
    many = palette(400)
    assert many.shape == (400, 3) and many.dtype == np.uint8
    assert len({tuple(colour) for colour in many.tolist()}) == 400
    assert (palette(30) == many[:30]).all(), "a colour must not change when classes are added"
    assert palette(1000).shape == (1000, 3)
    assert palette(0).shape == (0, 3)


def test_given_colours() -> None:
    assert palette(2, [(1, 2, 3), (4, 5, 6), (7, 8, 9)]).tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(UserError, match="2 colours for 3 classes"):
        palette(3, [(1, 2, 3), (4, 5, 6)])
    for wrong in ([(1, 2)], [(0, 0, 256)], [1, 2, 3]):
        with pytest.raises(UserError, match="red, green, blue"):
            palette(1, wrong)
    named = class_palette(["Background", "cat"])
    assert len(set(named[0].tolist())) == 1 and (named[1] == palette(1)[0]).all()


def test_text_on_colours_reads_well() -> None:
    """WCAG asks for a contrast of 4.5 for text; the better of black and white always has it."""

    def luminance(colour: tuple) -> float:
        values = [
            v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in map(float, colour)
        ]
        return 0.2126 * values[0] + 0.7152 * values[1] + 0.0722 * values[2]

    for colour in palette(300).tolist():
        light, dark = sorted((luminance(colour), luminance(text_colour(colour))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_overlay_pixel_by_pixel(photo: np.ndarray) -> None:
    labels = np.zeros((24, 40), np.uint8)
    labels[:, 20:] = 1
    labels[0, 0] = 255
    painted = np.asarray(overlay(photo, labels, 2, opacity=0.4, colours=[(10, 20, 30), (200, 100, 0)]))
    assert (painted[0, 0] == np.round(0.35 * photo[0, 0])).all(), "ignored pixels keep the photo, borders are dark"
    for y, x, colour in ((12, 5, (10, 20, 30)), (12, 30, (200, 100, 0))):
        for channel in range(3):
            assert abs(int(painted[y, x, channel]) - (0.6 * int(photo[y, x, channel]) + 0.4 * colour[channel])) <= 0.5
    assert painted[12, 19].sum() < np.asarray(overlay(photo, labels * 0, 2, 0.4, [(10, 20, 30)] * 2))[12, 19].sum()


def test_colour_map_hatches_what_has_no_colour() -> None:
    painted = colour_map(np.array([[0, 1], [255, 1]]), np.array([(1, 2, 3), (4, 5, 6)], np.uint8))
    assert painted[0].tolist() == [[1, 2, 3], [4, 5, 6]] and painted[1, 1].tolist() == [4, 5, 6]
    assert painted[1, 0].tolist() in ([235] * 3, [205] * 3)
    hatched = colour_map(np.full((20, 20), 3), np.zeros((0, 3), np.uint8))
    assert set(np.unique(hatched)) == {205, 235}


def test_similarity_map_agrees_with_the_windows(photo: np.ndarray) -> None:
    """Upsampled window by window and averaged, as the method says."""
    names = ["a, b", "c"]
    result = make_result(photo, names)
    grid = result._grid
    rows, columns = len(grid.rows.starts), len(grid.columns.starts)
    total, count = torch.zeros(24, 40), torch.zeros(24, 40)
    for i, y in enumerate(grid.rows.starts):
        for j, x in enumerate(grid.columns.starts):
            patches = result._similarity.reshape(rows, 4, columns, 4, 3)[i, :, j, :, 1]
            window = torch.nn.functional.interpolate(patches[None, None], size=(16, 16), mode="bilinear")[0, 0]
            total[y : y + 16, x : x + 16] += window
            count[y : y + 16, x : x + 16] += 1
    np.testing.assert_allclose(result.similarity_map("b"), (total / count).numpy(), atol=1e-5)
    assert (result.similarity_map(1) == result.similarity_map("b")).all()
    assert result.similarity_map("c", (7, 9)).shape == (7, 9)
    with pytest.raises(UserError, match="'d' is none of"):
        result.similarity_map("d")


def test_heat_map_runs_from_dark_to_bright() -> None:
    ramp = np.broadcast_to(np.linspace(-1, 2, 60), (5, 60))
    heat = np.asarray(heat_map(np.full((5, 60, 3), 100, np.uint8), ramp, 0, 1)).sum(axis=-1)[0]
    assert (np.diff(heat.astype(int)) >= -2).all() and heat[-1] > heat[0] + 300
    assert heat_map(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), 0, 0).size == (2, 2)


def test_result_in_words_and_numbers(photo: np.ndarray) -> None:
    result = make_result(photo, ["a", "b", "c"])
    counts = {name: int((result.labels == label).sum()) for label, name in enumerate("abc")}
    assert result.shares == pytest.approx({name: count / 960 for name, count in counts.items()})
    assert result.probabilities.shape == (3, 24, 40)
    assert (result.probabilities.argmax(axis=0) == result.labels).mean() > 0.999
    assert "40 × 24 pixels, 3 classes" in repr(result)
    assert share_text(0) == "0.0 %" and share_text(0.0004) == "<0.1 %" and share_text(0.1234) == "12.3 %"


def colours_in(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def test_result_picture_shows_each_colour_that_was_found(photo: np.ndarray) -> None:
    result = make_result(photo, ["sky", "grass", "tree"])
    picture = result.picture()
    assert {tuple(colour) for colour in result.colours.tolist()} <= colours_in(picture)
    result.colours = [(1, 2, 3), (3, 2, 1), (2, 3, 1)]
    assert {(1, 2, 3), (3, 2, 1), (2, 3, 1)} <= colours_in(result_picture(result))
    result.colours = [(1, 2, 3)]
    with pytest.raises(UserError, match="1 colours for 3 classes"):
        result.picture()
    result.colours = None
    assert Image.open(io.BytesIO(result._repr_png_())).size == picture.size


def margins_are_blank(picture: Image.Image, pixels: int = 8) -> bool:
    """Nothing was drawn up to the edge, so nothing was cut there."""
    array = np.asarray(picture)
    edges = (array[:pixels], array[-pixels:], array[:, :pixels], array[:, -pixels:])
    return all((edge == 255).all() for edge in edges)


NAMES = {
    "few": ["sky", "grass"],
    "many": [f"class number {k}" for k in range(300)],
    "long": ["sky", "an extraordinarily long name " * 12, "W" * 300],
    "odd": ["Ärger", "<b>", "небо", "a\tb", "%s {0} \\n"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("size", [(24, 40), (1, 1), (3, 500), (500, 3), (600, 900)])
def test_no_text_is_clipped(names: list[str], size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    result = make_result(image, names)
    picture = result.picture()
    assert margins_are_blank(picture)
    assert picture.width <= 2400
    if len(names) < 10:
        assert margins_are_blank(heat_picture(result))
        assert margins_are_blank(compare_picture({"CLIP": result, "ClearCLIP": make_result(image, names, seed=1)}))


def test_legend_is_cut_with_an_ellipsis_only_where_it_must() -> None:
    letters = font(16)
    assert shorten("short", letters, 500) == "short"
    cut = shorten("a long text " * 40, letters, 300)
    assert cut.endswith("…") and letters.getlength(cut) <= 300 < letters.getlength(cut[:-1] + " long t…")
    entries = [LegendEntry(f"name {k}", (k, k, k), f"{k} %") for k in range(90)]
    sheet = compose([[Panel(Image.new("RGB", (300, 200)), "t" * 500)]], entries, footnote="word " * 200)
    assert margins_are_blank(sheet)
    grey = {(k, k, k) for k in range(40, 80)}
    assert grey <= colours_in(sheet)


def test_sizes_on_a_sheet() -> None:
    assert fit((10, 20), 100) == (50, 100) and fit((10, 30), 100) == (30, 90) and fit((4000, 3000), 640) == (640, 480)
    assert fit((1, 5000), 640) == (1, 640)
    labels = np.arange(6).reshape(2, 3)
    assert (resize_labels(labels, (4, 9)) == labels.repeat(2, 0).repeat(3, 1)).all()
    assert (resize_labels(labels.repeat(3, 0).repeat(3, 1), (2, 3)) == labels).all()


def test_grid_picture() -> None:
    photo = Image.new("RGB", (64, 48), (9, 9, 9))
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 32:], labels[0] = 1, 255
    rows = [[photo, labels], [np.asarray(photo), labels]]
    picture = grid_picture(rows, ["image", "ground truth"], [("sky", (1, 2, 3)), ("grass", (30, 20, 10))], side=192)
    array = np.asarray(picture)
    # Each panel is 192 x 144: two label maps, half of each is grass but for the ignored row of 3 pixels.
    assert ((array == (30, 20, 10)).all(axis=-1)).sum() == pytest.approx(2 * 96 * 141 + 20 * 20, abs=300)
    assert margins_are_blank(picture)
    more = grid_picture(rows, [], [], row_titles=["a", "b"], panel_titles=[["1", "2"], ["3", "4"]])
    assert margins_are_blank(more) and more.height > picture.height


def test_evaluation_picture_counts_errors() -> None:
    image = np.full((40, 40, 3), 80, np.uint8)
    truth = np.zeros((40, 40), np.uint8)
    truth[:, 20:], truth[:4] = 1, 255
    guess = np.zeros((40, 40), np.int64)
    picture = evaluation_picture(image, truth, guess, ["a", "b"], palette=[(1, 2, 3), (30, 20, 10)])
    array = np.asarray(picture)
    # 36 rows of 20 pixels are wrong, each enlarged to 12 x 12.
    assert ((array == (213, 94, 0)).all(axis=-1)).sum() == pytest.approx(36 * 20 * 144, abs=900)
    assert margins_are_blank(picture)
    with pytest.raises(UserError, match="one height and width"):
        evaluation_picture(image, truth[:5], guess, ["a", "b"])
    odd = evaluation_picture(
        image, np.where(truth == 255, 1000, truth.astype(int)), guess, ["a", "b"], ignore_index=1000
    )
    assert margins_are_blank(odd)
    nothing = evaluation_picture(image, np.full((40, 40), 255), guess, ["a", "b"])
    assert (213, 94, 0) in colours_in(nothing), "the legend still names the colour of errors"


def test_files_are_whole_or_not_there(tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(photo, ["a", "b"])
    path = result.save(tmp_path / "new" / "folder" / "picture.png")
    assert Image.open(path).size == result.picture().size
    result.save_labels(tmp_path / "labels.png")
    assert (np.asarray(Image.open(tmp_path / "labels.png")) == result.labels).all()
    for suffix in (".jpg", ".webp", ".pdf"):
        assert save_image(result.picture(), tmp_path / f"picture{suffix}").stat().st_size > 1000
    with pytest.raises(UserError, match="no suffix of an image format"):
        result.save(tmp_path / "picture.txt")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        result.save(tmp_path / "file" / "picture.png")

    before = (tmp_path / "labels.png").read_bytes()
    monkeypatch.setattr(os, "replace", broken)
    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(UserError, match="cannot be written"):
        save_image(Image.new("RGB", (9, 9)), tmp_path / "labels.png")
    assert (tmp_path / "labels.png").read_bytes() == before
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def broken(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_more_than_256_classes_need_16_bits(tmp_path: Path) -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    result = make_result(image, [f"class {k}" for k in range(300)])
    assert result.labels.dtype == np.uint16 and result.labels.max() > 255
    result.save_labels(tmp_path / "labels.png")
    assert (np.asarray(Image.open(tmp_path / "labels.png")) == result.labels).all()


def test_png_bytes() -> None:
    assert Image.open(io.BytesIO(png_bytes(Image.new("RGB", (3, 2), (1, 2, 3))))).getpixel((0, 0)) == (1, 2, 3)
