"""A page drawn as pixels and as vectors."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from picture_checks import make_result, noise
from PIL import Image

from clearclip.segmentation import comparison_page
from clearclip.visualize import PageLayout, result_page, save_image, sheet_page

SVG = "{http://www.w3.org/2000/svg}"


def make_page() -> PageLayout:
    labels = np.zeros((60, 80), np.uint8)
    labels[:, 40:] = 1
    return result_page(noise(60, 80), labels, ["sky", "$x^{2$ <b> Ärger"], [(1, 2, 3), (200, 100, 0)], "model · method")


def test_svg_keeps_every_pixel(tmp_path: Path) -> None:
    """Its pictures are those of the page, in the page's order and size."""
    page = make_page()
    width, height = page.size
    root = ElementTree.parse(save_image(page, tmp_path / "page.svg")).getroot()
    points = 72 / 300
    _, _, view_width, view_height = map(float, root.get("viewBox").split())
    assert (view_width, view_height) == pytest.approx((width * points, height * points), abs=0.01)
    images = list(root.iter(f"{SVG}image"))
    assert len(images) == len(page.images)
    for element, placed in zip(images, page.images, strict=True):
        data = element.get("{http://www.w3.org/1999/xlink}href").partition("base64,")[2]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        assert np.array_equal(pixels, placed.pixels)


def test_pdf_is_one_page_of_the_same_size_and_the_same_each_time(tmp_path: Path) -> None:
    page = make_page()
    content = save_image(page, tmp_path / "a.pdf").read_bytes()
    assert content == save_image(page, tmp_path / "b.pdf").read_bytes(), "no date in it"
    [box] = re.findall(rb"/MediaBox \[ ?([\d. ]+?) ?\]", content)
    left, bottom, right, top = map(float, box.split())
    width, height = page.size
    assert (right - left, top - bottom) == pytest.approx((width * 72 / 300, height * 72 / 300), abs=0.01)
    assert content.startswith(b"%PDF") and len(re.findall(rb"/Subtype /Image", content)) >= 3


def test_results_and_comparisons_as_vectors(tmp_path: Path) -> None:
    result = make_result(noise(24, 40), ["天空", "tree"])
    for suffix in ("svg", "pdf"):
        assert result.save(tmp_path / f"result.{suffix}").stat().st_size > 1000
        page = comparison_page({"CLIP": result, "ClearCLIP": result})
        assert save_image(page, tmp_path / f"comparison.{suffix}").stat().st_size > 1000
    assert isinstance(sheet_page([("a", noise(9, 9))], 1), PageLayout)


@pytest.mark.parametrize(("method_count", "columns"), [(1, 2), (2, 3), (4, 5), (5, 3), (8, 3), (16, 6), (17, 6)])
def test_a_comparison_of_many_methods_fits_a_screen(method_count: int, columns: int) -> None:
    result = make_result(noise(40, 40), ["sky", "tree"])
    page = comparison_page({f"method {number}": result for number in range(method_count)})
    lefts = {image.x for image in page.images if image.framed}
    assert len(lefts) == columns
