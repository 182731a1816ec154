"""Sheets: the right pixels in the right places, no clipped text."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from picture_checks import colours_in, make_result, margins_are_blank, noise, places
from PIL import Image

from clearclip.segmentation import compare_picture
from clearclip.utils.errors import UserError
from clearclip.visualize import fit, grid_picture, result_page, result_picture

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


def test_snow_has_an_edge() -> None:
    """A white photo on the white page is framed on all four sides, in all three panels."""
    white = np.full((40, 50, 3), 255, np.uint8)
    labels = np.zeros((40, 50), np.uint8)
    picture = result_picture(white, labels, ["snow" * 40, "sky"], [(255, 255, 255), (0, 0, 255)])
    assert len(places(picture, white.repeat(16, 0).repeat(16, 1))) == 3


def test_long_names_keep_their_share() -> None:
    names = ["a long name of a class, " * 4 + str(number) for number in range(3)]
    labels = np.repeat(np.array([0, 1, 1, 2], np.uint8)[None], 4, axis=0)
    page = result_page(noise(4, 4), labels, names, [(1, 2, 3)] * 3)
    legend = [line.text for line in page.texts if line.text.startswith("a long name")]
    assert [text.rsplit(" · ")[-1] for text in legend] == ["50.0%", "25.0%", "25.0%"]
