"""The miniature's classes: names in label order and a palette that colour-blind readers can tell apart."""

CLASSES: tuple[str, ...] = (
    "sky", "cloud", "sun", "balloon", "mountain", "snow", "grass",
    "water", "sand", "road", "house", "tree", "boat", "car",
)  # fmt: skip

PALETTE: tuple[tuple[int, int, int], ...] = (
    (150, 205, 240), (225, 225, 232), (255, 225, 60), (204, 60, 140), (105, 85, 75), (190, 240, 235),
    (130, 200, 60), (0, 95, 180), (235, 190, 135), (65, 65, 75),
    (215, 85, 0), (0, 105, 75), (120, 60, 180), (200, 20, 40),
)  # fmt: skip

LABELS: dict[str, int] = {name: label for label, name in enumerate(CLASSES)}
