"""A small painter: signed distances in pixels, blended with anti-aliased edges onto an image and its labels.

Everything is computed in float64 from elementary operations, so that the image, once rounded to 8 bits, is
the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np

Colour = np.ndarray | tuple[float, float, float]


class Canvas:
    """An RGB image (H, W, 3) in 0..1 with a label map (H, W) and the coordinates of its pixel centres."""

    def __init__(self, rgb: np.ndarray, labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        self.rgb, self.labels, self.x, self.y = rgb, labels, x, y

    @classmethod
    def blank(cls, height: int, width: int) -> Canvas:
        """A black canvas with label 0 everywhere."""
        x, y = np.arange(width)[None, :] + 0.5, np.arange(height)[:, None] + 0.5
        return cls(np.zeros((height, width, 3)), np.zeros((height, width), np.uint8), x, y)

    def crop(self, left: float, top: float, right: float, bottom: float) -> Canvas:
        """The part inside a box, as a canvas that paints into this one; coordinates stay the same."""
        x0, y0 = float(self.x[0, 0]) - 0.5, float(self.y[0, 0]) - 0.5
        columns = slice(max(math.floor(left - x0), 0), max(math.ceil(right - x0), 0))
        rows = slice(max(math.floor(top - y0), 0), max(math.ceil(bottom - y0), 0))
        return Canvas(self.rgb[rows, columns], self.labels[rows, columns], self.x[:, columns], self.y[rows])

    @property
    def empty(self) -> bool:
        """Whether the canvas holds no pixel (a crop that lies outside the image)."""
        return self.labels.size == 0

    def paint(self, distance: np.ndarray, colour: Colour, label: int | None = None, opacity: float = 1.0) -> None:
        """Paint where ``distance`` (pixels, negative inside) is below zero; ``label`` names those pixels."""
        distance = np.broadcast_to(distance, self.labels.shape)
        coverage = (np.clip(0.5 - distance, 0.0, 1.0) * opacity)[..., None]
        self.rgb += coverage * (np.asarray(colour) - self.rgb)
        if label is not None:
            self.labels[distance <= 0] = label

    def shade(self, amount: np.ndarray, colour: Colour) -> None:
        """Blend a colour in by ``amount`` (H, W) in 0..1, labels untouched."""
        self.rgb += np.clip(amount, 0.0, 1.0)[..., None] * (np.asarray(colour) - self.rgb)

    def noise(self, rng: np.random.Generator, cell_x: float, cell_y: float) -> np.ndarray:
        """Smooth noise in 0..1, (H, W), with cells of the given size in pixels."""
        return value_noise(rng, self.y[:, 0] / cell_y, self.x[0] / cell_x)


def _interpolation(positions: np.ndarray) -> np.ndarray:
    positions = positions - math.floor(positions.min()) if positions.size else positions
    cells = np.floor(positions).astype(int)
    t = positions - cells
    t = t * t * (3 - 2 * t)
    matrix = np.zeros((len(positions), int(cells.max(initial=0)) + 2))
    rows = np.arange(len(positions))
    matrix[rows, cells] = 1 - t
    matrix[rows, cells + 1] = t
    return matrix


def value_noise(rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Smooth noise in 0..1, (len(rows), len(columns)); positions are in cells and may be unevenly spaced."""
    down, across = _interpolation(rows), _interpolation(columns)
    return down @ rng.random((down.shape[1], across.shape[1])) @ across.T


def mix(first: Colour, second: Colour, amount: np.ndarray | float) -> np.ndarray:
    """``first`` where amount is 0, ``second`` where it is 1; an (H, W) amount gives (H, W, 3)."""
    amount = np.asarray(amount)[..., None]
    return np.asarray(first) * (1 - amount) + np.asarray(second) * amount


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def circle(c: Canvas, cx: float, cy: float, radius: float) -> np.ndarray:
    """Signed distance to a disc."""
    return np.sqrt((c.x - cx) ** 2 + (c.y - cy) ** 2) - radius


def ellipse(c: Canvas, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """Signed distance (near the edge) to an ellipse along the axes."""
    return (np.sqrt(((c.x - cx) / rx) ** 2 + ((c.y - cy) / ry) ** 2) - 1) * min(rx, ry)


def box(c: Canvas, left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> np.ndarray:
    """Signed distance to a rectangle, its corners rounded by ``radius``."""
    dx = np.abs(c.x - (left + right) / 2) - (right - left) / 2 + radius
    dy = np.abs(c.y - (top + bottom) / 2) - (bottom - top) / 2 + radius
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0) - radius


def polygon(c: Canvas, *points: tuple[float, float]) -> np.ndarray:
    """Signed distance (exact along the edges) to a convex polygon, points in either order."""
    corners = np.asarray(points, dtype=float)
    following = np.roll(corners, -1, axis=0)
    area = np.sum(corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1])
    distance = None
    for (ax, ay), (bx, by) in zip(corners, following, strict=True):
        length = math.hypot(bx - ax, by - ay) * math.copysign(1.0, area)
        side = ((by - ay) * (c.x - ax) - (bx - ax) * (c.y - ay)) / length
        distance = side if distance is None else np.maximum(distance, side)
    return distance


def segment(c: Canvas, ax: float, ay: float, bx: float, by: float, radius: float) -> np.ndarray:
    """Signed distance to a line of half-width ``radius`` with round ends."""
    dx, dy = bx - ax, by - ay
    t = np.clip(((c.x - ax) * dx + (c.y - ay) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    return np.sqrt((c.x - ax - t * dx) ** 2 + (c.y - ay - t * dy) ** 2) - radius
