"""The picture of an evaluated image: truth, prediction and errors."""

from __future__ import annotations

import numpy as np
import pytest
from picture_checks import colours_in, margins_are_blank, places

from clearclip.evaluation.evaluation_picture import evaluation_picture
from clearclip.miniature import CLASSES, PALETTE
from clearclip.utils.errors import UserError


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
