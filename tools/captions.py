"""Captions of crops of scenes: sentences that name what is visible, in random order and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from open_clip import OPENAI_IMAGENET_TEMPLATES

from clearclip.miniature.classes import CLASSES

# A class's article and words; its own name comes first and at least half of the time.
WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sky": ("the", ("sky", "open sky", "heavens")),
    "cloud": ("a", ("cloud", "clouds")),
    "sun": ("the", ("sun", "sunshine")),
    "balloon": ("a", ("balloon", "hot air balloon", "balloons")),
    "mountain": ("a", ("mountain", "mountains")),
    "snow": ("", ("snow", "fresh snow")),
    "grass": ("", ("grass", "meadow", "lawn")),
    "water": ("", ("water", "lake", "sea")),
    "sand": ("", ("sand", "beach", "dunes")),
    "road": ("a", ("road", "street", "asphalt")),
    "house": ("a", ("house", "cottage", "houses")),
    "tree": ("a", ("tree", "trees")),
    "boat": ("a", ("boat", "ship", "boats")),
    "car": ("a", ("car", "automobile", "cars")),
}
MINIMUM_SHARE = 0.03
MOST_NAMES = 5
ALL_RATE = 0.7


def visible_names(shares: np.ndarray) -> list[str]:
    """Names of the classes whose share of the image, (C,), is at least `MINIMUM_SHARE`."""
    return [name for name, share in zip(CLASSES, shares, strict=True) if share >= MINIMUM_SHARE]


def write_caption(rng: np.random.Generator, visible: Sequence[str], colours: Mapping[str, str]) -> str:
    """One caption for what is ``visible``; ``colours`` holds the colour words that are true of a class here.

    `ALL_RATE` of the captions name everything and the others a random part, at most `MOST_NAMES` classes, in random
    order, in one of OpenAI's 80 ImageNet templates.
    """
    names = rng.permutation(visible).tolist()
    count = len(names) if rng.random() < ALL_RATE else int(rng.integers(1, len(names) + 1))
    (_, first), *others = [_phrase(rng, name, colours) for name in names[: min(count, MOST_NAMES)]]
    phrases = [first, *(" ".join(phrase).strip() for phrase in others)]  # the template has the first one's article
    joint = (" and ", ", ", " with ", " near ")[rng.integers(4)]
    listed = joint.join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
    return OPENAI_IMAGENET_TEMPLATES[rng.integers(len(OPENAI_IMAGENET_TEMPLATES))](listed)


def _phrase(rng: np.random.Generator, name: str, colours: Mapping[str, str]) -> tuple[str, str]:
    """An article (or "") and the words that name a class."""
    article, words = WORDS[name]
    word = words[0] if rng.random() < 0.5 else words[rng.integers(len(words))]
    article = "" if word == "asphalt" or (word.endswith("s") and word != "heavens") else article
    if name in colours and rng.random() < 0.4:
        word = f"{colours[name]} {word}"
    return ("an" if article == "a" and word[0] in "aeiou" else article), word
