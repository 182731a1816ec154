"""Procedurally drawn landscapes with pixel-exact labels, a scene for every seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clearclip.miniature import stuff, things
from clearclip.miniature.canvas import Canvas, mix, value_noise
from clearclip.miniature.classes import CLASSES, LABELS, PALETTE
from clearclip.miniature.stuff import Light, Rng, pick

__all__ = ["BENCHMARK_SEEDS", "CLASSES", "PALETTE", "TRAINING_SEEDS", "VALIDATION_SEEDS", "Scene", "draw_scene"]

# Seeds of the three uses never meet: fit on the first, choose on the second, publish on the third.
TRAINING_SEEDS = range(10_000_000)
VALIDATION_SEEDS = range(10_000_000, 10_000_200)
BENCHMARK_SEEDS = range(20_000_000, 20_000_200)

LAYOUTS = (  # kinds of ground from the horizon to the viewer
    ("grass",), ("sand",), ("snow",), ("water",),
    ("water", "sand"), ("water", "grass"), ("water", "snow"), ("water", "sand", "grass"),
    ("grass", "water"), ("sand", "water"), ("snow", "water"), ("grass", "water", "grass"),
    ("grass", "water", "sand"), ("grass", "sand"), ("sand", "grass"), ("snow", "grass"),
    ("grass", "snow"), ("sand", "snow"),
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """``image`` (H, W, 3) uint8 RGB and ``labels`` (H, W) uint8, indices into `CLASSES`.

    ``colours`` maps a class to the colour word that holds for all its objects here; others are absent.
    """

    image: np.ndarray
    labels: np.ndarray
    colours: dict[str, str] = field(default_factory=dict)


@dataclass
class _Band:
    kind: str
    top: float
    bottom: float


def draw_scene(seed: int, size: tuple[int, int] = (128, 128)) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: any non-negative integer; the same seed and size give the same pixels on every machine.
        size: height and width in pixels, at least 16 each.

    Every pixel bears the label of the topmost layer whose outline contains its centre.
    """
    height, width = size
    if min(size) < 16:
        raise ValueError(f"a scene needs at least 16 x 16 pixels, not {height} x {width}")
    rng = np.random.default_rng(seed)
    unit = min(size) / 128
    canvas = Canvas.blank(height, width)
    colours: dict[str, set[str]] = {}

    horizon = height * rng.uniform(0.34, 0.60)
    light = stuff.sky(canvas, rng, horizon)
    _draw_sky_things(canvas, rng, horizon, unit, light)
    if rng.random() < 0.55:
        _draw_mountains(canvas, rng, horizon, unit, light)
    for _ in range(_count(rng, 0.5, 2)):
        balloon_size = rng.uniform(36, 70) * unit
        x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.12, 0.95) * horizon
        colours.setdefault("balloon", set()).add(things.balloon(canvas, rng, x, y, balloon_size, light))
    bands = _draw_ground(canvas, rng, horizon, unit, light)
    roads = _draw_road(canvas, rng, bands, horizon, unit, light) if rng.random() < 0.5 else []
    for y, x, kind, thing_size in sorted(_place_things(rng, bands, roads, horizon, height, width, unit)):
        painter = getattr(things, kind)
        colours.setdefault(kind, set()).add(painter(canvas, rng, x, y, thing_size, light))
    image = _finish(canvas, rng, light)
    single = {name: next(iter(words)) for name, words in colours.items() if len(words) == 1}
    return Scene(image, canvas.labels, single)


def _count(rng: Rng, probability: float, most: int) -> int:
    return int(rng.integers(1, most + 1)) if rng.random() < probability else 0


def _draw_sky_things(canvas: Canvas, rng: Rng, horizon: float, unit: float, light: Light) -> None:
    width = canvas.labels.shape[1]
    if rng.random() < 0.6:
        x = (0.5 + light.side * rng.uniform(0.05, 0.42)) * width
        stuff.sun(canvas, rng, x, rng.uniform(0.15, 0.85) * horizon, rng.uniform(12, 22) * unit)
    count = _count(rng, 0.6, 3)
    for k in range(count):
        x = (k + rng.uniform(0, 1)) / count * width
        stuff.cloud(canvas, rng, x, rng.uniform(0.25, 0.85) * horizon, rng.uniform(36, 74) * unit, light)


def _draw_mountains(canvas: Canvas, rng: Rng, horizon: float, unit: float, light: Light) -> None:
    capped = rng.random() < 0.4
    if rng.random() < 0.4:
        stuff.mountains(canvas, rng, horizon + 1, rng.uniform(0.6, 0.9) * horizon, light, capped, 1.0)
        stuff.mountains(canvas, rng, horizon + 1, rng.uniform(0.25, 0.45) * horizon, light, False, 0.2)
    else:
        stuff.mountains(canvas, rng, horizon + 1, rng.uniform(0.4, 0.85) * horizon, light, capped, 0.4)


def _draw_ground(canvas: Canvas, rng: Rng, horizon: float, unit: float, light: Light) -> list[_Band]:
    height, width = canvas.labels.shape
    kinds = pick(rng, LAYOUTS)
    shares = rng.uniform(0.6, 1.4, len(kinds)) * np.linspace(0.8, 1.2, len(kinds))
    edges = horizon + (height - horizon) * np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
    bands = []
    for k, kind in enumerate(kinds):
        swing = 0.0 if k == 0 and kind == "water" else rng.uniform(2, 5 if k == 0 else 11) * unit
        line = value_noise(rng, np.zeros(1), canvas.x[0] / (rng.uniform(28, 60) * unit))[0] - 0.5
        slope = (canvas.x[0] / width - 0.5) * rng.uniform(-6, 6) * unit * (k > 0)
        top = edges[k] + 2 * swing * line + slope
        stuff.ground(canvas, rng, kind, np.maximum(top, horizon - 3 * unit), horizon, light)
        if k and "water" in (kind, kinds[k - 1]):  # foam or a damp rim along the shore
            canvas.shade(np.clip(1 - np.abs(canvas.y - top[None, :]) / (1.3 * unit), 0, 1) * 0.7, (0.96, 0.97, 0.95))
        bands.append(_Band(kind, edges[k], edges[k + 1]))
    return bands


def _draw_road(canvas: Canvas, rng: Rng, bands: list[_Band], horizon: float, unit: float, light: Light) -> list[_Band]:
    """A road across a band of land, or to the horizon where there is no water; returns where cars stand."""
    height, width = canvas.labels.shape
    land = [band for band in bands if band.kind != "water" and band.bottom - band.top > 20 * unit]
    if not land:
        return []
    paint = pick(rng, ((0.95, 0.94, 0.90), (0.93, 0.76, 0.28)))
    if len(land) == len(bands) and rng.random() < 0.45:
        vanishing, foot = width * rng.uniform(0.25, 0.75), width * rng.uniform(0.3, 0.7)
        near, far = width * rng.uniform(0.24, 0.38), rng.uniform(1.0, 2.5) * unit
        depth = (canvas.y - horizon) / (height - horizon)
        bend = width * rng.uniform(-0.22, 0.22) * np.clip(depth, 0, 1) * (1 - np.clip(depth, 0, 1)) * 2
        centre, half = vanishing + (foot - vanishing) * depth + bend, far + (near - far) * depth
        distance = np.maximum(np.abs(canvas.x - centre) - half, (horizon + 1.5 * unit) - canvas.y)
        _paint_road(canvas, rng, distance, horizon, light)
        dashes = np.abs((np.log(0.08 + np.clip(depth, 0, 1)) * 6) % 2 - 1) - 0.5
        canvas.paint(
            np.maximum(np.abs(canvas.x - centre) - 0.06 * half - 0.2, dashes * half + (distance > 0) * 9),
            paint,
        )
        rim = np.abs(np.abs(canvas.x - centre) - 0.88 * half) - 0.035 * half
        canvas.paint(np.maximum(rim, distance), paint, opacity=0.8)
        return [_Band("road", horizon + 0.45 * (height - horizon), height - 3 * unit)]
    band = max(land, key=lambda candidate: candidate.bottom - candidate.top)
    half = min(rng.uniform(9, 15) * unit, 0.42 * (band.bottom - band.top))
    middle = rng.uniform(band.top + half, max(band.bottom - half, band.top + half))
    wave = value_noise(rng, np.zeros(1), canvas.x[0] / (70 * unit))[0] - 0.5
    centre = middle + wave[None, :] * rng.uniform(0, 14) * unit
    distance = np.abs(canvas.y - centre) - half
    _paint_road(canvas, rng, distance, horizon, light)
    dashes = np.abs((canvas.x / (11 * unit) + rng.random()) % 1 - 0.5) * 11 * unit - 3 * unit
    canvas.paint(np.maximum(np.abs(canvas.y - centre) - 0.8 * unit, dashes), paint)
    canvas.paint(np.abs(np.abs(canvas.y - centre) - 0.86 * half) - 0.45 * unit, paint, opacity=0.8)
    return [_Band("road", middle - 0.2 * half, middle + 0.9 * half)]


def _paint_road(canvas: Canvas, rng: Rng, distance: np.ndarray, horizon: float, light: Light) -> None:
    surface = Canvas.blank(*canvas.labels.shape)
    stuff.ground(surface, rng, "road", np.full(canvas.x.shape[1], horizon), horizon, light)
    canvas.paint(distance, surface.rgb, LABELS["road"])


def _place_things(
    rng: Rng, bands: list[_Band], roads: list[_Band], horizon: float, height: int, width: int, unit: float
) -> list[tuple[float, float, str, float]]:
    """Where the objects stand, as (y, x, kind, size); nearer ones are larger."""
    water = [band for band in bands if band.kind == "water"]
    land = [band for band in bands if band.kind != "water"]
    wanted: list[tuple[str, _Band]] = []
    if water:
        wanted += [("boat", pick(rng, water))] * _count(rng, 0.85, 2)
    elif rng.random() < 0.08:
        wanted.append(("boat", pick(rng, land)))
    if roads:
        wanted += [("car", roads[0])] * _count(rng, 0.9, 2)
    elif land and rng.random() < 0.35:
        wanted.append(("car", pick(rng, land)))
    if land:
        wanted += [("house", pick(rng, land)) for _ in range(_count(rng, 0.5, 2))]
        wanted += [("tree", pick(rng, land)) for _ in range(_count(rng, 0.65, 3))]
    elif rng.random() < 0.12:
        wanted.append((pick(rng, ("house", "tree")), pick(rng, water)))
    slots = rng.permutation(len(wanted))
    placed = []
    for (kind, band), slot in zip(wanted, slots, strict=True):
        x = width * (slot + rng.uniform(0.2, 0.8)) / len(wanted)
        y = rng.uniform(band.top + 0.25 * (band.bottom - band.top), band.bottom)
        nearness = 0.75 + 0.5 * np.clip((y - horizon) / (height - horizon), 0, 1)
        least, most = {"house": (34, 56), "tree": (44, 74), "boat": (34, 56), "car": (36, 58)}[kind]
        placed.append((float(y), float(x), kind, float(rng.uniform(least, most) * nearness * unit)))
    return placed


def _finish(canvas: Canvas, rng: Rng, light: Light) -> np.ndarray:
    """The light of the scene, a soft lens, grain, and 8 bits."""
    rgb = canvas.rgb * light.tint
    height, width = canvas.labels.shape
    if rng.random() < 0.5:
        glow = (0.5 + 0.5 * light.side * (2 * canvas.x / width - 1)) * (1 - 0.5 * canvas.y / height)
        rgb = rgb + 0.10 * glow[..., None] * mix(light.haze, (1.0, 1.0, 1.0), 0.4)
    rgb = (rgb - 0.5) * rng.uniform(0.88, 1.08) + 0.5 + rng.uniform(-0.04, 0.04)
    blur = rng.uniform(0, 0.22) if rng.random() < 0.6 else rng.uniform(0.22, 0.33)
    for axis in (0, 1):
        padded = np.concatenate([rgb.take([0], axis), rgb, rgb.take([-1], axis)], axis)
        size = rgb.shape[axis]
        before, after = padded.take(range(size), axis), padded.take(range(2, size + 2), axis)
        rgb = rgb + blur * (0.5 * (before + after) - rgb)
    rgb = rgb + rng.normal(0, rng.uniform(0.003, 0.018), (height, width, 1)) * (0.7, 0.8, 1.0)
    return np.clip(np.floor(rgb * 255 + 0.5), 0, 255).astype(np.uint8)
