"""Drawn landscapes with a label for every pixel: a scene for every seed.

Everything is a filled polygon, drawn at twice the size with OpenCV and halved, which makes clean edges. Sizes are in
pixels of a scene of 128 × 128, times ``canvas.unit``; rows count downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from clearclip.miniature.classes import CLASSES

__all__ = ["BENCHMARK_SEEDS", "TRAINING_SEEDS", "VALIDATION_SEEDS", "Scene", "draw_scene"]

# Seeds of the three uses never meet: fit on the first, choose on the second, publish on the third.
TRAINING_SEEDS = range(10_000_000)
VALIDATION_SEEDS = range(10_000_000, 10_000_200)
BENCHMARK_SEEDS = range(20_000_000, 20_000_200)

GROUND = ("grass", "sand", "snow", "water")
SURFACES = {"grass": (88, 160, 62), "sand": (226, 194, 130), "snow": (206, 226, 250), "water": (40, 105, 175),
            "road": (76, 76, 82), "mountain": (136, 98, 80), "cloud": (246, 241, 238), "sun": (255, 214, 40),
            "glow": (255, 236, 110), "tiles": (98, 54, 46), "wood": (110, 74, 46), "glass": (185, 222, 240),
            "rubber": (42, 40, 44)}  # fmt: skip
SKIES = (((62, 128, 218), (150, 195, 240)), ((120, 172, 232), (190, 215, 240)),
         ((120, 110, 175), (240, 170, 140)), ((75, 85, 150), (150, 150, 195)))  # fmt: skip
COLOURS = {"red": (208, 48, 44), "blue": (48, 80, 205), "purple": (142, 68, 172), "orange": (240, 130, 38),
           "green": (34, 104, 48), "pink": (238, 150, 182)}  # fmt: skip
PAINTS = {"house": ("red", "orange"), "tree": ("green", "pink"), "car": ("blue", "purple"), "boat": ("red", "blue"),
          "balloon": ("red", "purple")}  # fmt: skip
WHITE, YELLOW = (248, 246, 240), (250, 206, 62)

# Parts of each thing, the first one at the back: surface and outline, in units of its size around its foot. Two points
# are the corners of a box, more are a polygon; (x, y, radius) is a disc.
THINGS = {
    "house": (("bricks", ((-1, -1.1), (1, 0))), ("tiles", ((-1.25, -1.05), (0, -1.95), (1.25, -1.05))),
              ("wood", ((-0.25, -0.6), (0.15, 0))), ("glass", ((0.4, -0.8), (0.8, -0.4)))),
    "tree": (("wood", ((-0.16, -1), (0.16, 0))), ("leaves", (-0.5, -1.1, 0.55)), ("leaves", (0.5, -1.1, 0.55)),
             ("leaves", (0, -1.5, 0.75))),
    "car": (("paint", ((-0.7, -0.6), (-0.4, -1.15), (0.4, -1.15), (0.75, -0.6))),
            ("paint", ((-1.15, -0.65), (1.15, -0.15))), ("shade", ((-1.15, -0.4), (1.15, -0.3))),
            ("glass", ((-0.45, -1.02), (-0.05, -0.65))), ("glass", ((0.05, -1.02), (0.45, -0.65))),
            ("rubber", (-0.62, -0.2, 0.3)), ("rubber", (0.62, -0.2, 0.3))),
    "boat": (("wood", ((-0.06, -1.9), (0.06, -0.5))), ("stripes", ((0.1, -1.85), (0.1, -0.62), (0.95, -0.62))),
             ("stripes", ((-0.1, -1.7), (-0.1, -0.62), (-0.75, -0.62))),
             ("planks", ((-1.1, -0.55), (1.2, -0.55), (0.75, 0), (-0.75, 0)))),
    "balloon": (("wood", ((-0.22, -0.42), (0.22, 0))),
                ("gores", ((-0.75, -1.1), (0.75, -1.1), (0.2, -0.45), (-0.2, -0.45))), ("gores", (0, -1.4, 0.85))),
    "sun": (("sun", (0, 0, 1)), ("glow", (0, 0, 0.6))),
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """``image`` (H, W, 3) uint8 RGB and ``labels`` (H, W) uint8, indices into `CLASSES`.

    ``colours`` maps a class to the colour word that holds for all its objects here; others are absent.
    """

    image: np.ndarray
    labels: np.ndarray
    colours: dict[str, str] = field(default_factory=dict)


class Canvas:
    """Image (H, W, 3) float32 and labels (H, W) at twice the size of the scene, and a source of chance."""

    def __init__(self, seed: int, height: int, width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.height, self.width, self.unit = 2 * height, 2 * width, min(height, width) / 64
        self.image = np.zeros((self.height, self.width, 3), np.float32)
        self.labels = np.zeros((self.height, self.width), np.uint8)
        self.y, self.x = np.mgrid[: self.height, : self.width].astype(np.float32) / self.unit

    def fill(self, outline: np.ndarray, paint: np.ndarray, name: str) -> None:
        """Fill a polygon, (points, 2) as x, y, with a surface, (3,) or (H, W, 3), of the class ``name``."""
        outline = np.round(outline).astype(np.int32)
        (left, top), (right, bottom) = np.maximum(outline.min(0), 0), np.maximum(outline.max(0) + 1, 0)
        box = (slice(top, bottom), slice(left, right))
        mask = np.zeros(self.labels[box].shape, np.uint8)
        if mask.size:
            cv2.fillPoly(mask, [outline - (left, top)], 1)
            np.copyto(self.image[box], paint[box] if np.ndim(paint) == 3 else paint, "same_kind", mask[..., None] > 0)
            self.labels[box][mask > 0] = CLASSES.index(name)

    def noise(self, across: float, down: float) -> np.ndarray:
        """Smooth noise (H, W) around 0 with blobs of the given size in pixels."""
        cells = math.ceil(self.height / down / self.unit) + 1, math.ceil(self.width / across / self.unit) + 1
        coarse = self.rng.standard_normal(cells, np.float32)
        return cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)

    def surface(self, name: str, paint: np.ndarray | None = None) -> np.ndarray:
        """A `SURFACES` in a colour of its own, or a pattern of ``paint``, (3,); returns (3,) or (H, W, 3)."""
        x, y, noise = self.x, self.y, self.noise
        base = np.asarray(SURFACES.get(name, paint), np.float32)
        if name in ("grass", "sand", "water", "road", "mountain"):
            base = base + self.rng.normal(0, 10, 3)
        match name:
            case "grass":
                tone = 20 * noise(1.2, 5)
            case "sand":
                tone = 9 * noise(1, 1) + 7 * np.sin(y / 2 + 3 * noise(24, 24))
            case "snow":
                tone = 9 * noise(14, 9) - 40 * (noise(2, 2) > 1.3)
            case "water":
                tone = 17 * np.sin(y * self.rng.uniform(0.8, 1.3) + 2 * noise(12, 40)) + 3 * noise(6, 1)
            case "road":
                tone = 7 * noise(1, 1)
            case "mountain":
                tone = 24 * np.sign(noise(9, 9)) * np.abs(noise(5, 5)) + 6 * noise(2, 2)
            case "cloud":
                tone = 7 * noise(7, 5) - 5
            case "bricks":
                tone = -45 * ((y % 4 < 1) | ((x + 3 * (y % 8 < 4)) % 6 < 1))
            case "tiles":
                tone = 30 * ((x + y) % 5 < 1.5)
            case "leaves":
                tone = 30 * np.sign(noise(2.5, 2.5))
            case "planks":
                tone = -50 * (y % 4 < 1.2)
            case "stripes":
                return np.where((y % 8 < 4)[..., None], WHITE, base).astype(np.float32)
            case "gores":
                return np.where((x % 8 < 4)[..., None], YELLOW, base).astype(np.float32)
            case _:
                return 0.6 * base if name == "shade" else base
        return (base + tone[..., None]).astype(np.float32)

    def draw(self, name: str, x: float, y: float, size: float, paint: np.ndarray | None = None) -> None:
        """Draw one of `THINGS` with its foot at (x, y)."""
        for surface, shape in THINGS[name]:
            if np.ndim(shape) == 1:
                outline = oval(*shape, shape[2])
            elif len(shape) == 2:
                (left, top), (right, bottom) = shape
                outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
            else:
                outline = np.array(shape)
            self.fill((x, y) + size * outline, self.surface(surface, paint), name)


def oval(x: float, y: float, across: float, down: float) -> np.ndarray:
    """Outline of an ellipse from its centre and half-axes, (40, 2)."""
    angles = np.linspace(0, 2 * math.pi, 40)
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)


def draw_sky(c: Canvas, horizon: float) -> None:
    """A gradient, and above the horizon the sun and clouds."""
    rng, unit, above = c.rng, c.unit, min(horizon, c.height)
    top, bottom = np.asarray(SKIES[rng.integers(len(SKIES))]) + rng.normal(0, 8, (2, 3))
    c.image[:] = top + (bottom - top) * np.linspace(0, 1, c.height)[:, None, None]
    if horizon > 0 and rng.random() < 0.6:
        c.draw("sun", rng.uniform(0, c.width), rng.uniform(0.1, 0.8) * above, rng.uniform(13, 28) * unit)
    for _ in range(rng.integers(horizon > c.height, 4) if horizon > 0 else 0):
        x, y, size = rng.uniform(0, c.width), rng.uniform(0.15, 0.9) * above, rng.uniform(13, 30) * unit
        puffs = [(dx, rng.uniform(-0.35, 0.05), rng.uniform(0.4, 0.62)) for dx in (-0.9, -0.3, 0.3, 0.9)]
        white = c.surface("cloud")
        for lower, shade in ((0.14, 30), (0, 0)):
            for dx, dy, radius in puffs:
                c.fill((x, y) + size * oval(dx, dy + lower, radius, 0.85 * radius), white - shade, "cloud")


def draw_land(c: Canvas, horizon: float) -> None:
    """Mountains at the horizon, bands of ground below it, and a road."""
    rng, height, width, unit = c.rng, c.height, c.width, c.unit
    for _ in range(rng.integers(1, 4) if rng.random() < 0.5 else 0):
        peak = np.array([rng.uniform(0, width), horizon - rng.uniform(24, 90) * unit])
        left, right, down = -rng.uniform(28, 70) * unit, rng.uniform(28, 70) * unit, horizon + 4 - peak[1]
        slopes = np.array([(left, down), (0, 0), (right, down)])
        c.fill(peak + slopes, c.surface("mountain"), "mountain")
        if rng.random() < 0.3:
            c.fill(peak + 0.4 * slopes, c.surface("snow"), "snow")
    kinds, xs = rng.permutation(GROUND)[: rng.integers(1, 4)], np.linspace(0, width, 20)
    for number, kind in enumerate(kinds):
        wave = rng.uniform(-8, 8) * unit * np.sin(xs / width * rng.uniform(2, 9) + rng.uniform(0, 6))
        edge = horizon + number * (height - horizon) / len(kinds) + wave * (number > 0)
        c.fill(np.concatenate([np.stack([xs, edge], 1), [(width, height), (0, height)]]), c.surface(kind), kind)
    if rng.random() < 0.5:
        draw_road(c, max(horizon, 0))


def draw_road(c: Canvas, horizon: float) -> None:
    """A road from side to side, or from the horizon to the viewer, with dashes along its middle."""
    rng, unit = c.rng, c.unit
    if rng.random() < 0.6:  # start and end of its middle line, and half its width there
        half = np.array([0, rng.uniform(11, 22) * unit])
        start = np.array([0, rng.uniform(horizon + half[1], c.height)])
        end, near = np.array([c.width, start[1] + rng.uniform(-15, 15) * unit]), half
    else:
        start, end = np.array([rng.uniform(0, c.width), horizon]), np.array([rng.uniform(0, c.width), c.height])
        half, near = np.array([rng.uniform(2, 10) * unit, 0]), np.array([rng.uniform(22, 48) * unit, 0])

    def piece(a: float, b: float, part: float) -> np.ndarray:
        m, n = (start + t * (end - start) for t in (a, b))
        v, w = (part * (half + t * (near - half)) for t in (a, b))
        return np.array([m - v, n - w, n + w, m + v])

    c.fill(piece(0, 1, 1), c.surface("road"), "road")
    for t in np.arange(0, 1, 0.125):
        c.fill(piece(t, t + 0.06, 0.07), WHITE, "road")


def draw_things(c: Canvas, horizon: float) -> dict[str, set[str]]:
    """Balloons, and below the horizon houses, trees, cars and boats; returns the colour words of each class."""
    rng, unit, used = c.rng, c.unit, {}
    sky = max(horizon, 0.5 * c.height)
    places = [("balloon", rng.uniform(0.2, 1.1) * sky, rng.uniform(0, c.width)) for _ in range(rng.integers(0, 3))]
    spots = rng.uniform((max(horizon, 0), 0), (c.height + 8 * unit, c.width), (4, 2)) if horizon < c.height else ()
    for y, x in sorted(map(tuple, spots[: rng.integers(1, 5)])):
        under = CLASSES[c.labels[min(int(y), c.height - 1), int(x)]]
        usual = {"water": "boat", "road": "car"}.get(under)
        kind = usual if usual and rng.random() < 0.8 else ("house", "tree", "car", "boat")[rng.integers(4)]
        places.append((kind, y, x))
    for kind, y, x in places:
        word = str(rng.choice(PAINTS[kind]))
        used.setdefault(kind, set()).add(word)
        c.draw(kind, x, y, rng.uniform(16, 28) * unit, np.asarray(COLOURS[word]) + rng.normal(0, 8, 3))
    return used


def draw_scene(seed: int, size: tuple[int, int] = (128, 128)) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative integer; the same seed and size give the same pixels.
        size: height and width in pixels, at least 16 each.

    Every pixel has the label of what was drawn last there. Some scenes are all ground, others all sky.
    """
    if min(size) < 16:
        raise ValueError(f"a scene needs at least 16 x 16 pixels, not {size[0]} x {size[1]}")
    c = Canvas(seed, *size)
    horizon = c.rng.choice([c.rng.uniform(0.2, 0.75), -0.05, 1.2], p=[0.7, 0.15, 0.15]) * c.height
    draw_sky(c, horizon)
    if horizon < c.height:
        draw_land(c, horizon)
    used = draw_things(c, horizon)
    image = np.clip(c.image * c.rng.uniform(0.88, 1.04) + c.rng.uniform(-8, 8), 0, 255)
    image = np.round(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)).astype(np.uint8)
    single = {name: next(iter(words)) for name, words in used.items() if len(words) == 1}
    return Scene(image, c.labels[::2, ::2].copy(), single)
