"""The objects of a scene: each stands on a base point, has a size in pixels and returns its colour's name."""

from __future__ import annotations

import numpy as np

from clearclip.miniature.canvas import Canvas, box, circle, ellipse, mix, polygon, segment, smoothstep
from clearclip.miniature.classes import LABELS
from clearclip.miniature.stuff import Light, Rng, jitter, pick

PAINTS = {
    "red": (0.82, 0.16, 0.16),
    "orange": (0.95, 0.52, 0.14),
    "yellow": (0.96, 0.80, 0.22),
    "green": (0.20, 0.60, 0.36),
    "blue": (0.16, 0.40, 0.76),
    "purple": (0.50, 0.28, 0.64),
    "pink": (0.93, 0.50, 0.64),
    "white": (0.95, 0.94, 0.92),
    "brown": (0.50, 0.33, 0.22),
    "black": (0.14, 0.14, 0.17),
}

FOLIAGE = {
    "green": ((0.10, 0.34, 0.16), (0.30, 0.58, 0.22)),
    "dark": ((0.06, 0.24, 0.20), (0.18, 0.44, 0.32)),
    "orange": ((0.66, 0.26, 0.08), (0.95, 0.58, 0.18)),
    "red": ((0.52, 0.10, 0.12), (0.84, 0.28, 0.20)),
    "yellow": ((0.70, 0.48, 0.08), (0.95, 0.80, 0.28)),
    "pink": ((0.74, 0.38, 0.52), (0.98, 0.74, 0.80)),
}


def _paint_of(rng: Rng, *names: str) -> tuple[str, np.ndarray]:
    name = pick(rng, names)
    return name, jitter(rng, PAINTS[name], 0.06)


def _shadow(c: Canvas, light: Light, x: float, y: float, width: float, opacity: float = 0.34) -> None:
    distance = ellipse(c, x - light.side * 0.12 * width, y, width * 0.62, width * 0.085)
    c.shade(smoothstep(0.10 * width, -0.10 * width, distance) * opacity, (0.05, 0.06, 0.12))


def house(canvas: Canvas, rng: Rng, x: float, y: float, size: float, light: Light) -> str:
    """A house with planked or brick walls, roof, door, windows, often a chimney; ``size`` is its width."""
    label = LABELS["house"]
    wall_name, wall = _paint_of(rng, "white", "yellow", "red", "blue", "pink", "orange", "brown")
    roof = _paint_of(rng, *(n for n in ("red", "brown", "black", "blue", "orange", "green") if n != wall_name))[1] * 0.9
    wall_height, roof_height = size * rng.uniform(0.5, 0.85), size * rng.uniform(0.34, 0.55)
    c = canvas.crop(x - 0.85 * size, y - wall_height - 1.3 * roof_height, x + 0.85 * size, y + 0.2 * size)
    if c.empty:
        return wall_name
    left, right, eaves = x - size / 2, x + size / 2, y - wall_height
    _shadow(c, light, x, y, size * 1.1)
    if rng.random() < 0.6:
        chimney = x + size * pick(rng, (-0.26, 0.24))
        brick = jitter(rng, (0.55, 0.27, 0.22))
        stack = box(c, chimney - 0.07 * size, eaves - roof_height * 1.05, chimney + 0.07 * size, eaves)
        c.paint(stack, brick, label)
    course = size * rng.uniform(0.075, 0.11)
    row = np.floor((c.y - eaves) / course)
    joint = np.minimum(np.abs((c.y - eaves) / course % 1 - 0.5), 1)
    lines = smoothstep(0.32, 0.48, joint)
    if rng.random() < 0.5:  # bricks rather than planks: upright joints too, shifted in every second course
        upright = np.abs(((c.x - left) / (2.1 * course) + 0.5 * (row % 2)) % 1 - 0.5)
        lines = np.maximum(lines, smoothstep(0.40, 0.49, upright))
    across = np.clip((c.x - x) / size * light.side + 0.5, 0, 1)
    facade = mix(wall, wall * 0.66, 0.75 * lines) * mix((0.86, 0.86, 0.92), (1.05, 1.04, 1.0), across)
    c.paint(box(c, left, eaves, right, y), np.clip(facade, 0, 1), label)
    overhang = size * 0.08
    tiles = np.abs(((c.y - eaves) / (size * 0.07)) % 1 - 0.5) * 2
    if rng.random() < 0.5:
        outline = polygon(c, (left - overhang, eaves), (x, eaves - roof_height), (right + overhang, eaves))
    else:
        inset = size * rng.uniform(0.1, 0.22)
        top = eaves - roof_height * 0.85
        outline = polygon(
            c, (left - overhang, eaves), (left + inset, top), (right - inset, top), (right + overhang, eaves)
        )
    c.paint(outline, mix(roof, roof * 0.7, 0.7 * tiles), label)
    door = pick(rng, (-0.26, 0.0, 0.26))
    frame, glass = (
        np.array((0.97, 0.96, 0.92)),
        mix((0.30, 0.42, 0.55), (1.0, 0.86, 0.50), float(rng.random() < 0.35)),
    )
    door_x, door_top = x + door * size, y - min(0.44 * size, 0.7 * wall_height)
    c.paint(box(c, door_x - 0.10 * size, door_top, door_x + 0.10 * size, y), frame * 0.96, label)
    c.paint(box(c, door_x - 0.075 * size, door_top + 0.03 * size, door_x + 0.075 * size, y), roof * 0.75, label)
    for offset in (-0.28, 0.0, 0.28):
        if offset == door or (door and abs(offset - door) < 0.3):
            continue
        cx, cy, half = x + offset * size, y - 0.62 * wall_height, 0.095 * size
        c.paint(box(c, cx - half, cy - half, cx + half, cy + half), frame, label)
        c.paint(box(c, cx - 0.72 * half, cy - 0.72 * half, cx + 0.72 * half, cy + 0.72 * half), glass, label)
        c.paint(box(c, cx - 0.1 * half, cy - half, cx + 0.1 * half, cy + half), frame, label)
    return wall_name


def tree(canvas: Canvas, rng: Rng, x: float, y: float, size: float, light: Light) -> str:
    """A broad-leaved tree, a poplar or a conifer; ``size`` is its height."""
    label = LABELS["tree"]
    shape = pick(rng, ("round", "round", "poplar", "conifer", "conifer"))
    names = ("green", "dark", "dark") if shape == "conifer" else tuple(FOLIAGE)
    name = pick(rng, names)
    dark, bright = (jitter(rng, colour, 0.06) for colour in FOLIAGE[name])
    c = canvas.crop(x - 0.55 * size, y - 1.05 * size, x + 0.55 * size, y + 0.1 * size)
    if c.empty:
        return name
    _shadow(c, light, x, y, size * 0.6)
    trunk = jitter(rng, pick(rng, ((0.36, 0.24, 0.16), (0.30, 0.22, 0.20), (0.82, 0.80, 0.76))))
    girth = size * rng.uniform(0.045, 0.065)
    bark = mix(trunk, trunk * 0.6, np.clip((x - c.x) * light.side / girth * 0.5 + 0.5, 0, 1) * np.ones_like(c.y))
    trunk_shape = polygon(
        c,
        (x - 1.3 * girth, y),
        (x - 0.7 * girth, y - 0.5 * size),
        (x + 0.7 * girth, y - 0.5 * size),
        (x + 1.3 * girth, y),
    )
    c.paint(trunk_shape, bark, label)
    speckle = 0.5 * c.noise(rng, size * 0.05 + 0.5, size * 0.04 + 0.5) + 0.5 * c.noise(
        rng, size * 0.025 + 0.5, size * 0.025 + 0.5
    )
    if shape == "conifer":
        tiers, reach = int(rng.integers(3, 6)), size * rng.uniform(0.24, 0.33)
        for k in range(tiers):
            low = y - size * (0.14 + 0.60 * k / tiers)
            high = y - size * (0.14 + 0.86 * (k + 1.55) / (tiers + 0.55))
            half = reach * (1 - 0.62 * k / tiers)
            fringe = np.abs((c.x - x) / (size * 0.075) % 1 - 0.5) * size * 0.05
            tier = np.maximum(polygon(c, (x - half, low), (x, high), (x + half, low)), c.y - low + fringe)
            lit = np.clip(0.5 + light.side * (c.x - x) / half * 0.4 - (c.y - low) / size * 0.6 + speckle - 0.65, 0, 1)
            snowless = mix(dark, bright, lit)
            c.paint(tier, snowless, label)
        return name
    crown = y - size * 0.62
    if shape == "poplar":
        blobs = [(0, 0.02, 0.19, 0.36)]
    else:
        blobs = [(0, 0.02, 0.25, 0.27)]
        for k in range(7):
            angle = 6.283185307 * (k + rng.uniform(-0.3, 0.3)) / 7
            radius = rng.uniform(0.13, 0.18)
            blobs.append((0.23 * np.cos(angle), 0.02 + 0.20 * np.sin(angle), radius, radius))
    distance = None
    for bx, by, rx, ry in blobs:
        blob = ellipse(c, x + bx * size, crown + by * size, rx * size, ry * size)
        distance = blob if distance is None else np.minimum(distance, blob)
    distance = distance + (speckle - 0.5) * size * 0.09
    height = np.clip((crown - c.y + light.side * (c.x - x) * 0.6) / (0.42 * size) * 0.5 + 0.5, 0, 1)
    leaves = np.clip(0.75 * height + 2.1 * (speckle - 0.5), 0, 1)
    c.paint(distance, mix(dark, bright, leaves), label)
    return name


def boat(canvas: Canvas, rng: Rng, x: float, y: float, size: float, light: Light) -> str:
    """A sailing boat, or now and then a steamer; ``size`` is the hull's length."""
    label = LABELS["boat"]
    name, hull = _paint_of(rng, "red", "white", "blue", "yellow", "brown", "black", "orange")
    c = canvas.crop(x - 0.7 * size, y - 1.35 * size, x + 0.7 * size, y + 0.45 * size)
    if c.empty:
        return name
    deep = size * 0.24
    mirrored = np.maximum(ellipse(c, x, y, size * 0.46, size * 0.26), y - c.y)
    c.shade(smoothstep(0.04 * size, -0.08 * size, mirrored) * 0.45, hull * 0.55)
    deck = y - deep * 0.9
    facing = light.side * pick(rng, (-1.0, 1.0))
    if rng.random() < 0.72:
        mast = x - facing * 0.04 * size
        c.paint(box(c, mast - 0.022 * size, deck - size, mast + 0.022 * size, deck), (0.36, 0.26, 0.18), label)
        cloth = _paint_of(rng, "white", "white", "red", "orange", "yellow", "blue", "pink")[1]
        second = pick(rng, (cloth, _paint_of(rng, "white", "red", "blue", "yellow")[1]))
        stripe = smoothstep(0.35, 0.45, np.abs(((deck - c.y) / (0.2 * size)) % 1 - 0.5)) * float(rng.random() < 0.4)
        belly = np.clip((c.x - mast) * facing / (0.5 * size), -1, 1) + 0 * c.y
        main = polygon(
            c,
            (mast + facing * 0.04 * size, deck - 0.95 * size),
            (mast + facing * 0.04 * size, deck - 0.08 * size),
            (mast + facing * 0.46 * size, deck - 0.08 * size),
        )
        c.paint(main, mix(mix(cloth, second * 0.9, stripe), cloth * 0.7, 0.55 * np.abs(belly)), label)
        jib = polygon(
            c,
            (mast - facing * 0.05 * size, deck - 0.82 * size),
            (mast - facing * 0.05 * size, deck - 0.1 * size),
            (mast - facing * 0.36 * size, deck - 0.1 * size),
        )
        c.paint(jib, mix(second, second * 0.7, 0.8 * np.abs(belly)), label)
    else:
        cabin = _paint_of(rng, "white", "yellow", "brown")[1]
        c.paint(box(c, x - 0.24 * size, deck - 0.22 * size, x + 0.22 * size, deck + 1), cabin, label)
        for k in range(3):
            c.paint(circle(c, x + (k - 1) * 0.14 * size, deck - 0.1 * size, 0.042 * size), (0.2, 0.3, 0.42), label)
        funnel = _paint_of(rng, "red", "orange", "black", "blue")[1]
        c.paint(box(c, x - 0.02 * size, deck - 0.5 * size, x + 0.12 * size, deck - 0.2 * size), funnel, label)
        c.paint(
            box(c, x - 0.02 * size, deck - 0.44 * size, x + 0.12 * size, deck - 0.38 * size),
            PAINTS["white"],
            label,
        )
    bow, stern = x + facing * 0.5 * size, x - facing * 0.46 * size
    shell = polygon(
        c,
        (stern, deck),
        (bow, deck - 0.05 * size),
        (x + facing * 0.30 * size, y),
        (x - facing * 0.36 * size, y),
    )
    c.paint(shell, mix(hull, hull * 0.6, np.clip((c.y - deck) / deep, 0, 1) * np.ones_like(c.x)), label)
    rail = np.maximum(shell, c.y - deck - 0.05 * size)
    c.paint(rail, mix(PAINTS["white"], hull, 0.25), label)
    return name


def car(canvas: Canvas, rng: Rng, x: float, y: float, size: float, light: Light) -> str:
    """A car from the side (saloon, hatchback, van); ``size`` is its length."""
    label = LABELS["car"]
    name, body = _paint_of(rng, "red", "blue", "yellow", "green", "white", "orange", "purple", "black", "pink")
    c = canvas.crop(x - 0.62 * size, y - 0.62 * size, x + 0.62 * size, y + 0.14 * size)
    if c.empty:
        return name
    facing = pick(rng, (-1.0, 1.0))
    radius = 0.115 * size
    _shadow(c, light, x, y, size * 1.05, 0.45)

    def at(across: float, up: float) -> tuple[float, float]:
        return x + facing * across * size, y - up * size

    roof, tail, nose = pick(rng, ((0.43, -0.30, 0.16), (0.45, -0.44, 0.14), (0.52, -0.46, 0.30), (0.41, -0.24, 0.12)))
    gleam = np.clip((y - c.y) / (roof * size), 0, 1) * np.ones_like(c.x)
    coat = mix(body * 0.55, np.clip(body * 1.08 + 0.04, 0, 1), gleam)
    cabin = polygon(c, at(tail - 0.06, 0.24), at(tail, roof), at(nose, roof), at(nose + 0.16, 0.24))
    c.paint(cabin, coat, label)
    glass = polygon(
        c,
        at(tail + 0.0, 0.28),
        at(tail + 0.05, roof - 0.04),
        at(nose - 0.02, roof - 0.04),
        at(nose + 0.09, 0.28),
    )
    pane = mix((0.20, 0.28, 0.38), (0.70, 0.82, 0.90), smoothstep(0.25, 0.75, c.noise(rng, 0.2 * size, 0.5 * size)))
    c.paint(glass, pane, label)
    pillar = at((tail + nose) / 2, 0)[0]
    c.paint(np.maximum(np.abs(c.x - pillar) - 0.018 * size, glass), body * 0.8, label)
    low = box(c, x - 0.5 * size, y - 0.30 * size, x + 0.5 * size, y - 0.075 * size, 0.07 * size)
    c.paint(low, coat, label)
    c.paint(np.maximum(low, np.abs(c.y - y + 0.13 * size) - 0.014 * size), body * 0.5, label)
    for across, colour in ((0.46, (1.0, 0.95, 0.70)), (-0.47, (0.85, 0.12, 0.10))):
        lamp = at(across, 0.215)
        c.paint(circle(c, *lamp, 0.042 * size), colour, label)
    for across in (-0.29, 0.28):
        wheel = at(across, 0.10)
        c.paint(circle(c, *wheel, radius), (0.09, 0.09, 0.10), label)
        c.paint(circle(c, *wheel, 0.52 * radius), (0.76, 0.77, 0.80), label)
        c.paint(circle(c, *wheel, 0.20 * radius), (0.30, 0.30, 0.32), label)
    return name


def balloon(canvas: Canvas, rng: Rng, x: float, y: float, size: float, light: Light) -> str:
    """A hot-air balloon in gores of two or three colours; ``size`` is its height, (x, y) its middle."""
    label = LABELS["balloon"]
    names = list(PAINTS)[:8]
    name, first = _paint_of(rng, *names)
    second = _paint_of(rng, *(n for n in names if n != name))[1]
    third = pick(rng, (first, _paint_of(rng, *names)[1]))
    c = canvas.crop(x - 0.45 * size, y - 0.55 * size, x + 0.45 * size, y + 0.55 * size)
    if c.empty:
        return name
    radius = 0.355 * size
    cy = y - 0.5 * size + radius
    mouth, basket_top, basket_bottom = cy + 1.28 * radius, y + 0.40 * size, y + 0.5 * size
    taper = polygon(
        c,
        (x - 0.86 * radius, cy + 0.50 * radius),
        (x + 0.86 * radius, cy + 0.50 * radius),
        (x + 0.22 * radius, mouth),
        (x - 0.22 * radius, mouth),
    )
    for side in (-1, 1):
        rope = segment(c, x + side * 0.19 * radius, mouth, x + side * 0.055 * size, basket_top, 0.012 * size + 0.1)
        c.paint(rope, (0.30, 0.24, 0.20), label)
    c.paint(
        box(c, x - 0.075 * size, basket_top, x + 0.075 * size, basket_bottom, 0.02 * size),
        (0.48, 0.32, 0.18),
        label,
    )
    envelope = np.minimum(circle(c, x, cy, radius), taper)
    # The gores' seams are meridians of a ball: straight down the middle, curved towards the rim.
    dy = np.clip((c.y - cy) / radius, -1, 1)
    half = np.where(dy < 0.5, np.sqrt(np.maximum(1 - dy * dy, 0.02)), np.maximum(0.86 - 0.82 * (dy - 0.5), 0.1))
    across = np.clip((c.x - x) / (half * radius), -1, 1)
    gore = (np.arcsin(across) / np.pi + 0.5) * int(rng.integers(5, 9)) + rng.random()
    colours = mix(first, second, smoothstep(0.46, 0.54, np.abs(gore % 2 - 1)))
    if rng.random() < 0.5:
        colours = mix(colours, third, smoothstep(0.2, 0.14, np.abs((c.y - cy) / radius - 0.05)) + 0 * across)
    bright = np.clip(0.72 + 0.30 * across * light.side - 0.22 * dy, 0.45, 1.12)[..., None]
    c.paint(envelope, np.clip(colours * bright, 0, 1), label)
    return name
