"""Label maps and similarity maps as colours, alone or over a photograph."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from clearclip.pictures.colours import Palette, palette, text_colour
from clearclip.pictures.lettering import font, text_size

#: Perceptually even and safe for colour-blind eyes.
COLOUR_MAP = "magma"


def colour_map(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint labels.

    Args:
        labels: (H, W), integers; what has no colour (ignored pixels) is hatched in grey.
        colours: (K, 3) uint8, the colour of each label.

    Returns:
        (H, W, 3) uint8
    """
    known = labels < len(colours)
    painted = colours[np.where(known, labels, 0)] if len(colours) else np.zeros((*labels.shape, 3), np.uint8)
    if not known.all():
        rows, columns = np.nonzero(~known)
        painted[rows, columns] = np.where((rows + columns) // 5 % 2, 235, 205)[:, None]
    return painted


def overlay(
    image: np.ndarray, labels: np.ndarray, n_classes: int, opacity: float = 0.55, colours: Palette | None = None
) -> Image.Image:
    """Paint labels over an image, with a fine line where two classes meet.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W), integers; those of ``n_classes`` and above (ignored pixels) leave the image as it is.
        n_classes: how many classes there are.
        opacity: of the paint, 0 to 1.
        colours: one for each class; default :func:`~clearclip.pictures.colours.palette`.

    Returns:
        a PIL image of the size of ``image``.
    """
    painted = colour_map(labels, palette(n_classes, colours)).astype(np.float32)
    known = (labels < n_classes)[..., None]
    mixed = np.where(known, image * (1 - opacity) + painted * opacity, image)
    mixed[borders(labels)] *= 0.35
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def borders(labels: np.ndarray) -> np.ndarray:
    """Where the pixel to the right or below has another label: (H, W) bool."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def write_names(image: Image.Image, labels: np.ndarray, names: Sequence[str], colours: np.ndarray, size: int) -> None:
    """Write each class's name into its largest region, where it fits: colours then need not be told apart.

    Args:
        image: what is written on, at the size of ``labels``.
        labels: (H, W), integers.
        names, colours: of each label.
        size: of the letters in pixels.
    """
    draw = ImageDraw.Draw(image)
    letters = font(size)
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=len(names))[: len(names)]):
        width, height = text_size(names[label], letters)
        _, parts, areas, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        largest = np.pad(parts == 1 + areas[1:, cv2.CC_STAT_AREA].argmax(), 1)
        # Shrinking by the text's box leaves the centres around which the whole box fits.
        box = np.ones((height + 4, width + 8), np.uint8)
        if box.shape[0] > labels.shape[0] or box.shape[1] > labels.shape[1]:
            continue
        centres = cv2.erode(largest.astype(np.uint8), box, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        if centres.any():
            depth = cv2.distanceTransform(centres, cv2.DIST_L2, 3)
            y, x = np.unravel_index(depth.argmax(), depth.shape)
            colour = text_colour(colours[label])
            draw.text((float(x - 1), float(y - 1)), names[label], fill=colour, font=letters, anchor="mm")


def heat_map(image: np.ndarray, values: np.ndarray, low: float, high: float) -> Image.Image:
    """A map of similarities over the image in grey.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (H, W) float.
        low, high: the values of the darkest and the brightest colour.

    Returns:
        a PIL image of the size of ``image``.
    """
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    heat = matplotlib.colormaps[COLOUR_MAP](scaled, bytes=True)[..., :3]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return Image.fromarray((0.3 * grey + 0.7 * heat).round().astype(np.uint8))


def heat_scale(width: int, height: int) -> Image.Image:
    """The colours of :func:`heat_map` from lowest to highest, left to right."""
    values = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return Image.fromarray(np.ascontiguousarray(matplotlib.colormaps[COLOUR_MAP](values, bytes=True)[..., :3]))
