"""The miniature's classes: names in label order and a palette that colour-blind readers can tell apart."""

CLASSES: tuple[str, ...] = (
    "sky", "cloud", "sun", "balloon", "mountain", "snow", "grass",
    "water", "sand", "road", "house", "tree", "boat", "car",
)  # fmt: skip

PALETTE: tuple[tuple[int, int, int], ...] = (
    (128, 202, 255), (197, 177, 186), (255, 239, 59), (213, 72, 169), (93, 63, 53), (242, 255, 243), (149, 218, 85),
    (0, 52, 152), (253, 204, 156), (26, 35, 51), (214, 97, 0), (36, 134, 105), (160, 106, 242), (162, 13, 15),
)  # fmt: skip
