"""The pictures: colours that can be told apart, the right pixels in the right places, no clipped text."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from clearclip.evaluation.hooks import evaluation_picture
from clearclip.miniature import CLASSES, PALETTE
from clearclip.segmentation import Segmentation, compare_picture
from clearclip.text import ClassWords, TextFeatures
from clearclip.utils.errors import UserError
from clearclip.visualize import class_palette, fit, grid_picture, heat_map, overlay, save_image, sheet, sheets
from clearclip.windows import WindowGrid


def make_result(image: np.ndarray, names: list[str], seed: int = 0) -> Segmentation:
    """A result of random similarities: 16-pixel windows every 8 pixels, patches of 4 pixels."""
    classes = ClassWords.parse(names)
    grid = WindowGrid.of(image.shape[:2], 16, 8, (4, 4))
    windows = torch.rand(grid.count, *(axis.cells for axis in (grid.rows, grid.columns)), len(classes.words),
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    text = TextFeatures(classes, torch.zeros(len(classes.words), 2), torch.tensor(classes.word_to_class))
    return Segmentation(image, grid.join(windows), grid, text, logit_scale=50.0, prob_thd=0.0)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("count", "normal", "blind"), [(7, 35, 28), (12, 30, 14), (20, 15, 5)])
def test_colours_are_distinct(count: int, normal: float, blind: float) -> None:
    """In CIE L*a*b*, where 2.3 is just noticeable; for the blind, red and green are replaced by their mean."""
    colours = class_palette(["x"] * count).astype(np.float32) / 255
    mixed = np.concatenate([(colours[:, :2] @ (0.2292, 0.7708))[:, None].repeat(2, axis=1), colours[:, 2:]], axis=1)
    for seen, least in ((colours, normal), (mixed.astype(np.float32), blind)):
        lab = cv2.cvtColor(seen[None], cv2.COLOR_RGB2LAB)[0]
        assert (np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e9 * np.eye(count)).min() > least


def test_palettes() -> None:
    many = class_palette(["x"] * 400)
    assert many.dtype == np.uint8 and len({tuple(colour) for colour in many.tolist()}) == 400
    assert (class_palette(["x"] * 30) == many[:30]).all(), "a colour must not change when classes are added"
    named = class_palette(["Background", "cat"])
    assert len(set(named[0].tolist())) == 1 and (named[1] == many[0]).all()
    assert class_palette(["a"], [(1, 2, 3), (4, 5, 6)]).tolist() == [[1, 2, 3]]
    with pytest.raises(UserError, match="1 colours for 3 classes"):
        class_palette(["a", "b", "c"], [(1, 2, 3)])
    with pytest.raises(UserError, match="red, green, blue"):
        class_palette(["a"], [(0, 0, 256)])


def test_overlay_pixel_by_pixel() -> None:
    photo, labels = noise(24, 40), np.zeros((24, 40), np.uint8)
    labels[:, 20:] = 1
    colours = np.array([(10, 20, 30), (200, 100, 0)], np.uint8)
    expected = 0.6 * photo + 0.4 * colours[labels]
    ratio = np.asarray(overlay(photo, labels, colours, opacity=0.4)).sum(axis=-1) / expected.sum(axis=-1)
    assert np.abs(np.delete(ratio, [19, 20], axis=1) - 1).max() < 0.05
    assert ratio[:, 19:21].min(axis=1).max() < 0.35, "a dark line between two classes"


def test_similarity_map_agrees_with_the_windows() -> None:
    """Upsampled window by window and averaged, as the method says."""
    result = make_result(noise(24, 40), ["a, b", "c"])
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
    assert result.similarity_map("c", (7, 9)).shape == (7, 9)
    titles = [title.rsplit(" · ")[0] for title, _ in result.titled_maps((4, 4))]
    assert titles == ["a", "b (a)", "c"]
    with pytest.raises(UserError, match="'d' is none of"):
        result.similarity_map("d")


def test_heat_map_runs_from_dark_to_bright() -> None:
    ramp = np.broadcast_to(np.linspace(-1, 2, 60), (5, 60))
    heat = np.asarray(heat_map(np.full((5, 60, 3), 100, np.uint8), ramp, 0, 1)).sum(axis=-1)[0]
    assert (np.diff(heat.astype(int)) >= -2).all() and heat[-1] > heat[0] + 300
    assert heat_map(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), 0, 0).size == (2, 2)


def test_result_in_words_and_numbers() -> None:
    result = make_result(noise(24, 40), ["a", "b", "c"])
    counts = {name: int((result.labels == label).sum()) for label, name in enumerate("abc")}
    assert result.shares == pytest.approx({name: count / 960 for name, count in counts.items()})
    assert result.probabilities.shape == (3, 24, 40)
    assert (result.probabilities.argmax(axis=0) == result.labels).mean() > 0.999
    assert "40 × 24 pixels, 3 classes" in repr(result)


def places(picture: Image.Image, panel: np.ndarray) -> list[tuple[int, int]]:
    """Where a panel is in a picture, pixel by pixel, with white above it and on its left."""
    sheet, (height, width, _) = np.asarray(picture), panel.shape
    white = (sheet == 255).all(axis=-1)
    corners = (sheet == panel[0, 0]).all(axis=-1) & np.roll(white, 1, axis=0) & np.roll(white, 1, axis=1)
    corners = zip(*np.nonzero(corners), strict=True)
    return [(y, x) for y, x in corners if np.array_equal(sheet[y : y + height, x : x + width], panel)]


def colours_in(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def margins_are_blank(picture: Image.Image, pixels: int = 8) -> bool:
    """Nothing was drawn up to the edge, so nothing was cut there."""
    array = np.asarray(picture)
    edges = (array[:pixels], array[-pixels:], array[:, :pixels], array[:, -pixels:])
    return all((edge == 255).all() for edge in edges)


NAMES = {
    "few": ["sky", "grass", "tree"],
    "many": [f"class number {k}" for k in range(300)],
    "long": ["sky", "an extraordinarily long name " * 12, "W" * 300],
    "odd": ["Ärger", "<b>", "небо", "a\tb", "$x^{2$ %s {0} \\n"],
}


@pytest.mark.parametrize(("names", "size"), [
    ("few", (24, 40)), ("few", (900, 600)), ("many", (60, 90)), ("long", (3, 500)), ("long", (40, 24)),
    ("odd", (500, 3)), ("odd", (1, 1)),
])  # fmt: skip
def test_photographs_are_sharp_and_no_text_is_clipped(names: str, size: tuple[int, int]) -> None:
    result = make_result(noise(*size), NAMES[names])
    whole = max(1, int((1200 if size[1] > 1.7 * size[0] else 800) / max(size)))
    photo = result.image.repeat(whole, 0).repeat(whole, 1) if max(size) <= 800 else fit(result.image, 800)
    picture = result.picture()
    assert margins_are_blank(picture) and picture.width <= 2600 and len(places(picture, photo)) == 1
    assert {tuple(result.colours[label]) for label in np.unique(result.labels)} <= colours_in(picture)
    if names != "many":
        assert margins_are_blank(result.heat_maps())
        assert margins_are_blank(
            compare_picture({"CLIP": result, "W" * 99: make_result(result.image, NAMES[names], 1)})
        )


def test_given_colours_and_any_style() -> None:
    result = make_result(noise(24, 40), ["sky", "grass", "tree"])
    result.colours = [(1, 2, 3), (3, 2, 1), (2, 3, 1)]
    picture = result.picture()
    assert set(result.colours) <= colours_in(picture)
    with plt.style.context("dark_background"):
        assert np.array_equal(np.asarray(result.picture()), np.asarray(picture)), "a user's own style changes nothing"
        assert plt.rcParams["text.color"] == "white" and not plt.get_fignums()
    assert Image.open(io.BytesIO(result._repr_png_())).size == picture.size
    result.colours = [(1, 2, 3)]
    with pytest.raises(UserError, match="1 colours for 3 classes"):
        result.picture()


def test_fit() -> None:
    assert [fit(noise(*size), 640).shape[:2] for size in ((10, 300), (400, 300), (4000, 3000), (2, 9000))] == [
        (20, 600), (400, 300), (640, 480), (1, 640)
    ]  # fmt: skip
    labels = np.arange(6).reshape(2, 3)
    assert (fit(labels, 9) == labels.repeat(3, 0).repeat(3, 1)).all()
    assert (fit(labels.repeat(3, 0).repeat(3, 1), 3) == labels).all()


def test_grid_picture() -> None:
    photo, labels = noise(48, 64), np.zeros((48, 64), np.uint8)
    labels[:, 32:], labels[0] = 1, 255
    legend = [("sky", (1, 2, 3)), ("grass", (30, 20, 10)), ("sea", (9, 8, 7))]
    picture = grid_picture([[photo, labels], [photo, labels]], ["image", "ground truth"], legend)
    painted = np.array([colour for _, colour in legend[:2]] + [(224, 224, 192)], np.uint8)[np.minimum(labels, 2)]
    for panel in (photo, painted):
        assert len(places(picture, panel.repeat(10, 0).repeat(10, 1))) == 2, "640 pixels, twice"
    assert (9, 8, 7) not in colours_in(picture), "the legend has what occurs"
    assert margins_are_blank(picture)


def test_evaluation_picture_counts_errors() -> None:
    image, truth, guess = np.full((40, 40, 3), 80, np.uint8), np.zeros((40, 40), int), np.zeros((40, 40), int)
    truth[:, 20:], truth[:4] = 1, 1000
    picture = evaluation_picture(image, truth, guess, ["a", "b"], [(1, 2, 3), (30, 20, 10)], ignore_index=1000)
    expected = np.full((40, 40, 3), 160 + 80 // 3, np.uint8)
    expected[:, 20:], expected[:4] = (0, 230, 230), (224, 224, 192)
    assert len(places(picture, expected.repeat(15, 0).repeat(15, 1))) == 1 and margins_are_blank(picture)
    with pytest.raises(UserError, match="one height and width"):
        evaluation_picture(image, truth[:5], guess, ["a", "b"])
    assert margins_are_blank(evaluation_picture(image, np.full((40, 40), 255), guess, ["a", "b"]))


def test_errors_have_a_colour_of_their_own() -> None:
    image, labels = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), int)
    picture = evaluation_picture(image, labels, labels + 1, CLASSES, PALETTE, title="model · method · image")
    [wrong] = colours_in(picture) & {(230, 0, 0), (230, 0, 200), (0, 230, 230)}
    assert min(np.linalg.norm(np.subtract(wrong, colour)) for colour in PALETTE) > 100
    assert margins_are_blank(picture)


def test_letters_of_any_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters that Matplotlib's font lacks are drawn by a font of the system; where none has them, it is said once."""
    sheets._font_file.cache_clear()
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: ["/no/such/font.ttf"])
    with pytest.warns(UserWarning, match=r"no font of this system has all letters.*Noto Sans CJK") as told:
        for _ in range(2):
            sheet([("天空", noise(40, 40))], 1)
    assert len(told) == 1
    monkeypatch.undo()
    sheets._font_file.cache_clear()
    fonts = sheets._font_file(frozenset("sky")), sheets._font_file(frozenset("天空"))
    assert fonts[0].endswith("DejaVuSans.ttf") and (fonts[1] == fonts[0] or Path(fonts[1]).is_file())
    sheets._font_file.cache_clear()


def broken(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result(np.zeros((40, 40, 3), np.uint8), [f"class {k}" for k in range(300)])
    path = result.save_labels(tmp_path / "new" / "folder" / "labels.png")
    assert result.labels.max() > 255 and (np.asarray(Image.open(path)) == result.labels).all(), "16 bits"
    for suffix in (".png", ".jpg", ".pdf"):
        assert save_image(Image.new("RGB", (99, 99)), tmp_path / f"picture{suffix}").stat().st_size > 100
    for suffix in ("jpg", "webp", "gif", "txt"):
        with pytest.raises(UserError, match=r"label maps need a format that keeps every value; use \.png"):
            result.save_labels(tmp_path / f"labels.{suffix}")
    assert (np.asarray(Image.open(result.save_labels(tmp_path / "labels.tif"))) == result.labels).all()
    with pytest.raises(UserError, match="no suffix of an image format"):
        result.save(tmp_path / "picture.txt")
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", broken)
    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(UserError, match="cannot be written"):
        save_image(Image.new("RGB", (9, 9)), path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
