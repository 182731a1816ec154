"""The textured regions of a scene: sky, sun, clouds, mountains, and the ground in its five kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearclip.miniature.canvas import Canvas, circle, mix, segment, smoothstep, value_noise
from clearclip.miniature.classes import LABELS

Rng = np.random.Generator

# Sky at the zenith, sky at the horizon, light of the whole scene; weight of the mood.
MOODS = (
    ((0.25, 0.52, 0.86), (0.72, 0.87, 0.97), (1.00, 1.00, 1.00), 6),  # clear day
    ((0.42, 0.68, 0.90), (0.90, 0.94, 0.95), (1.00, 1.00, 0.98), 4),  # pale day
    ((0.16, 0.58, 0.72), (0.78, 0.93, 0.86), (0.98, 1.00, 0.98), 3),  # turquoise
    ((0.45, 0.42, 0.72), (0.99, 0.74, 0.62), (1.00, 0.93, 0.90), 3),  # dawn
    ((0.72, 0.36, 0.40), (0.99, 0.76, 0.42), (1.00, 0.90, 0.80), 3),  # sunset
    ((0.53, 0.58, 0.64), (0.80, 0.82, 0.84), (0.93, 0.94, 0.97), 2),  # overcast
    ((0.12, 0.14, 0.36), (0.46, 0.40, 0.62), (0.76, 0.77, 0.94), 2),  # blue hour
)

GROUNDS = {
    "grass": (
        ((0.36, 0.62, 0.22), (0.55, 0.74, 0.28)),
        ((0.24, 0.52, 0.24), (0.42, 0.66, 0.30)),
        ((0.55, 0.62, 0.22), (0.74, 0.76, 0.36)),
        ((0.30, 0.56, 0.36), (0.50, 0.72, 0.46)),
    ),
    "sand": (
        ((0.86, 0.72, 0.47), (0.95, 0.85, 0.62)),
        ((0.88, 0.64, 0.40), (0.96, 0.78, 0.54)),
        ((0.80, 0.70, 0.54), (0.91, 0.83, 0.69)),
    ),
    "snow": (
        ((0.76, 0.84, 0.94), (0.97, 0.98, 1.00)),
        ((0.80, 0.82, 0.92), (0.99, 0.97, 0.98)),
    ),
    "water": (
        ((0.08, 0.36, 0.60), (0.30, 0.62, 0.80)),
        ((0.04, 0.46, 0.54), (0.28, 0.74, 0.74)),
        ((0.10, 0.26, 0.48), (0.32, 0.50, 0.70)),
        ((0.22, 0.44, 0.42), (0.46, 0.66, 0.58)),
    ),
    "road": (
        ((0.28, 0.28, 0.31), (0.38, 0.38, 0.41)),
        ((0.40, 0.39, 0.40), (0.50, 0.49, 0.49)),
        ((0.33, 0.29, 0.29), (0.43, 0.39, 0.38)),
    ),
}  # fmt: skip

ROCKS = (
    ((0.38, 0.38, 0.44), (0.60, 0.59, 0.62)),
    ((0.40, 0.31, 0.27), (0.64, 0.51, 0.42)),
    ((0.36, 0.32, 0.46), (0.58, 0.52, 0.64)),
    ((0.48, 0.30, 0.25), (0.74, 0.48, 0.36)),
    ((0.28, 0.36, 0.40), (0.48, 0.57, 0.58)),
)


@dataclass(frozen=True)
class Light:
    """What the sky decides for the rest: the horizon's colour, the scene's light, the side it comes from."""

    haze: np.ndarray
    tint: np.ndarray
    side: float


def pick(rng: Rng, options):
    """One of ``options``, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def jitter(rng: Rng, colour, amount: float = 0.05) -> np.ndarray:
    """A colour a little beside ``colour``: brightness and hue shifted, inside 0..1."""
    colour = np.asarray(colour, dtype=float)
    return np.clip(colour + rng.uniform(-amount, amount) + rng.uniform(-amount / 2, amount / 2, 3), 0, 1)


def sky(c: Canvas, rng: Rng, horizon: float) -> Light:
    """Fill the canvas with sky and choose the light."""
    weights = np.cumsum([mood[3] for mood in MOODS])
    mood = MOODS[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
    top, bottom = jitter(rng, mood[0], 0.07), jitter(rng, mood[1], 0.05)
    fall = np.clip(c.y / horizon, 0, 1) ** rng.uniform(0.8, 1.5)
    streaks = (c.noise(rng, 60, 9) - 0.5) * rng.uniform(0, 0.16)
    c.rgb[...] = mix(top, bottom, np.clip(fall + streaks, 0, 1))
    c.labels[...] = LABELS["sky"]
    return Light(bottom, np.asarray(mood[2]), pick(rng, (-1.0, 1.0)))


def sun(c: Canvas, rng: Rng, cx: float, cy: float, radius: float) -> None:
    """A disc with a warm limb, sometimes a crown of rays, and a glow that stays sky."""
    core, limb, _ = pick(
        rng,
        (
            ((1.0, 0.97, 0.72), (1.0, 0.82, 0.25), 0),
            ((1.0, 0.88, 0.42), (0.99, 0.62, 0.14), 0),
            ((1.0, 0.66, 0.36), (0.93, 0.34, 0.20), 0),
        ),
    )
    core, limb = jitter(rng, core, 0.04), jitter(rng, limb, 0.04)
    distance = circle(c, cx, cy, radius)
    c.shade(np.exp(-np.maximum(distance, 0) / (radius * rng.uniform(0.5, 1.0))) * 0.75, mix(limb, core, 0.6))
    if rng.random() < 0.6:
        count, turn = int(rng.integers(9, 15)), rng.random() * 6.283
        for ray in range(count):
            angle = turn + 6.283185307 * ray / count
            ux, uy = np.cos(angle), np.sin(angle)
            near, far = radius * 1.18, radius * (1.5 if ray % 2 else 1.36)
            arm = segment(c, cx + ux * near, cy + uy * near, cx + ux * far, cy + uy * far, radius * 0.075)
            c.paint(arm, mix(limb, core, 0.25), LABELS["sun"])
    c.paint(distance, mix(core, limb, smoothstep(-0.75 * radius, 0, distance)), LABELS["sun"])


def cloud(c: Canvas, rng: Rng, cx: float, cy: float, width: float, light: Light) -> None:
    """A heap of puffs on a flat base, lit from above."""
    height = width * rng.uniform(0.34, 0.5)
    c = c.crop(cx - 0.62 * width, cy - height - 2, cx + 0.62 * width, cy + 0.2 * height + 2)
    if c.empty:
        return
    bright = light.tint * pick(rng, ((1.0, 1.0, 1.0), (1.0, 0.97, 0.94), (0.94, 0.95, 0.98)))
    dark = mix(bright * (0.74, 0.78, 0.86), light.haze, rng.uniform(0.1, 0.5))
    puffs = int(rng.integers(4, 7))
    for row in (0, 1):  # the puffs behind are the higher ones
        for k in range(puffs - row):
            across = (k + 0.5 * row + 0.5) / puffs * 2 - 1
            radius = height * (0.58 - 0.24 * across * across) * rng.uniform(0.8, 1.1)
            x, y = (
                cx + across * 0.42 * width,
                cy - 0.32 * height - (1 - row) * height * 0.3 * (1 - across * across),
            )
            distance = np.maximum(circle(c, x, y, radius), c.y - cy)
            rise = np.clip((y - c.y + light.side * (c.x - x) * 0.35) / radius * 0.5 + 0.5, 0, 1)
            c.paint(distance, mix(dark, bright, rise), LABELS["cloud"])


def ridge(c: Canvas, rng: Rng, base: float, height: float) -> np.ndarray:
    """The y of a mountain range's ridge for every column: a few peaks, broken by smaller ones."""
    width = c.x.shape[1]
    x = c.x[0]
    line = np.zeros(width)
    for _ in range(int(rng.integers(2, 5))):
        centre, reach = rng.uniform(-0.05, 1.05) * width, rng.uniform(0.22, 0.5) * width
        line = np.maximum(line, rng.uniform(0.55, 1.0) * (1 - np.abs(x - centre) / reach))
    knots = np.arange(0, width + 8.0, max(width / 24, 2.0))
    rough = np.interp(x, knots, rng.uniform(-1, 1, len(knots)))
    return base - height * np.clip(line + 0.09 * rough, 0.04, None)


def mountains(c: Canvas, rng: Rng, base: float, height: float, light: Light, capped: bool, far: float) -> None:
    """A range of rock with slanting facets; ``capped`` puts snow (labelled so) on its heights."""
    line = ridge(c, rng, base, height)
    c = c.crop(0, line.min() - 1, c.x.shape[1], base + 1)
    if c.empty:
        return
    dark, bright = (jitter(rng, colour) for colour in pick(rng, ROCKS))
    slope = np.gradient(line)
    # Facets: stripes that run down the slopes, on the lit and on the shaded side of the ridge.
    slant = (c.x + light.side * 0.55 * (c.y - base)) / rng.uniform(5, 9)
    bend = c.noise(rng, 10, 10) * 2.2
    facets = np.abs((slant + bend) % 2 - 1)
    lit = smoothstep(0.25, 0.75, 0.55 * facets + 0.35 * c.noise(rng, 4, 4) + 0.25 * np.tanh(slope * light.side))
    haze = np.clip(0.1 + far * 0.35 + 0.2 * (c.y - line.min()) / (base - line.min() + 1), 0, 0.6)
    rock = mix(mix(dark, bright, lit), light.haze, haze)
    c.paint(line[None, :] - c.y, rock, LABELS["mountain"])
    if capped:
        snow_line = line.min() + height * rng.uniform(0.25, 0.6)
        edge = snow_line + (c.noise(rng, 5, 40) - 0.5) * height * 0.5
        shadow, bright = pick(rng, GROUNDS["snow"])
        white = mix(mix(shadow, bright, smoothstep(0.2, 0.7, lit)), light.haze, 0.12 * far)
        c.paint(np.maximum(line[None, :] - c.y, (c.y - edge) * 0.8), white, LABELS["snow"])


def ground(c: Canvas, rng: Rng, kind: str, top: np.ndarray, horizon: float, light: Light) -> None:
    """Fill everything below the line ``top`` (one y per column) with one kind of ground, in perspective."""
    bottom = float(c.y[-1, 0]) + 0.5
    unit = min(c.labels.shape) / 128
    c = c.crop(0, top.min() - 1, c.x.shape[1], bottom)
    if c.empty:
        return
    dark, bright = (jitter(rng, colour) for colour in pick(rng, GROUNDS[kind]))
    depth = np.clip((c.y - horizon) / (bottom - horizon + 1e-9), 0, 1)
    colour = TEXTURES[kind](c, rng, dark, bright, depth, unit, light)
    c.paint(top[None, :] - c.y, mix(colour, light.haze, 0.30 * (1 - depth) ** 3), LABELS[kind])


def _grass(c, rng, dark, bright, depth, unit, light):
    patches = c.noise(rng, 34 * unit, 12 * unit)
    blades = c.noise(rng, 1.6 * unit, 4.5 * unit)
    tufts = smoothstep(0.58, 0.8, c.noise(rng, 3.2 * unit, 3 * unit)) * depth
    colour = mix(dark, bright, np.clip(0.15 + 0.5 * patches + 0.8 * (blades - 0.5) * (0.4 + 0.6 * depth), 0, 1))
    colour = mix(colour, dark * 0.78, 0.5 * tufts)
    if rng.random() < 0.35:
        flower = pick(rng, ((0.98, 0.95, 0.9), (0.98, 0.85, 0.25), (0.9, 0.4, 0.55), (0.75, 0.5, 0.85)))
        seeds = rng.random(c.labels.shape) * (0.6 + 0.4 * depth)
        colour = mix(colour, flower, 0.85 * (seeds > 0.965))
    return colour


def _sand(c, rng, dark, bright, depth, unit, light):
    bend = c.noise(rng, 26 * unit, 16 * unit) * 9 + c.x * rng.uniform(-0.06, 0.06) / unit
    waves = np.sin((np.log(0.12 + depth) * rng.uniform(9, 15) + bend) * 1.7)
    colour = mix(dark, bright, np.clip(0.55 + 0.28 * waves + 0.35 * (c.noise(rng, 30 * unit, 14 * unit) - 0.5), 0, 1))
    grains = rng.random(c.labels.shape)
    return mix(colour, dark * 0.72, 0.5 * (grains > 0.93))


def _snow(c, rng, dark, bright, depth, unit, light):
    drifts = c.noise(rng, 30 * unit, 9 * unit) * 0.75 + c.noise(rng, 11 * unit, 5 * unit) * 0.35
    colour = mix(dark, bright, smoothstep(0.25, 0.72, drifts))
    return mix(colour, (1.0, 1.0, 1.0), 0.9 * (rng.random(c.labels.shape) > 0.97))


def _water(c, rng, dark, bright, depth, unit, light):
    near = np.log(0.06 + depth[:, 0] * 0.94)
    rows = (near - near.min()) * rng.uniform(9, 13)
    from_x = c.x[0] / (13 * unit)
    ripples = value_noise(rng, rows, from_x)
    colour = mix(bright, dark, np.clip(depth * 1.1, 0, 1) * 0.75)
    colour = mix(colour, light.haze, 0.25)
    colour = mix(colour, dark * 0.85, 0.8 * smoothstep(0.52, 0.75, ripples))
    return mix(colour, mix((1.0, 1.0, 1.0), light.haze, 0.3), 0.75 * smoothstep(0.30, 0.16, ripples))


def _road(c, rng, dark, bright, depth, unit, light):
    grain = rng.random(c.labels.shape)
    return mix(dark, bright, np.clip(0.25 + 0.5 * c.noise(rng, 24 * unit, 8 * unit) + 0.5 * (grain - 0.5), 0, 1))


TEXTURES = {"grass": _grass, "sand": _sand, "snow": _snow, "water": _water, "road": _road}
