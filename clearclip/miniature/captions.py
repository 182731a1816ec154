"""Captions for the miniature's training: sentences that name a random part of what an image shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from open_clip import OPENAI_IMAGENET_TEMPLATES

# The first word is the class name; it comes at least half of the time.
WORDS: dict[str, tuple[str, ...]] = {
    "sky": ("sky", "open sky", "heavens"),
    "cloud": ("cloud", "clouds"),
    "sun": ("sun", "sunshine"),
    "balloon": ("balloon", "hot air balloon", "balloons"),
    "mountain": ("mountain", "mountains", "rocks"),
    "snow": ("snow", "fresh snow"),
    "grass": ("grass", "meadow", "lawn"),
    "water": ("water", "lake", "sea"),
    "sand": ("sand", "beach", "dunes"),
    "road": ("road", "street", "asphalt"),
    "house": ("house", "cottage", "houses"),
    "tree": ("tree", "trees"),
    "boat": ("boat", "ship", "boats"),
    "car": ("car", "automobile", "cars"),
}
SENTENCES = (
    "{}.",
    "a picture of {}.",
    "a drawing of {}.",
    "a landscape with {}.",
    "a scene with {}.",
    "{} in a landscape.",
    "{} in the picture.",
    "there is {} here.",
    "we see {}.",
    "a view of {}.",
    "here: {}.",
    "an illustration showing {}.",
)
MINIMUM_SHARE = 0.012
MOST_NAMES = 5
TEMPLATE_SHARE = 0.4
_UNCOUNTED = {"snow", "fresh snow", "grass", "water", "sand", "sunshine", "asphalt"}


def visible_names(shares: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Names of the classes whose share of the image's pixels, (C,), is above `MINIMUM_SHARE`."""
    return [name for name, share in zip(classes, shares, strict=True) if share > MINIMUM_SHARE]


def write_caption(rng: np.random.Generator, visible: Sequence[str], colours: Mapping[str, str]) -> str:
    """One caption that names some of the ``visible`` classes, in random order and words.

    `TEMPLATE_SHARE` of the captions name a single thing in one of OpenAI's 80 ImageNet templates, the others one to
    `MOST_NAMES` things in a sentence. ``colours`` holds the colour words that are true of a class here.
    """
    if rng.random() < TEMPLATE_SHARE:
        name = visible[int(rng.integers(len(visible)))]
        template = OPENAI_IMAGENET_TEMPLATES[int(rng.integers(len(OPENAI_IMAGENET_TEMPLATES)))]
        return template(_word(rng, name, colours, 0.15))
    count = int(rng.integers(1, min(len(visible), MOST_NAMES) + 1))
    chosen = rng.permutation(len(visible))[:count]
    phrases = [_with_article(rng, _word(rng, visible[int(k)], colours, 0.4)) for k in chosen]
    joint = (" and ", ", ", " with ", " near ")[int(rng.integers(4))]
    listed = joint.join([", ".join(phrases[:-1]), phrases[-1]]) if count > 1 else phrases[0]
    return SENTENCES[int(rng.integers(len(SENTENCES)))].format(listed)


def _word(rng: np.random.Generator, name: str, colours: Mapping[str, str], colour_rate: float) -> str:
    words = WORDS[name]
    word = words[0] if rng.random() < 0.5 else words[int(rng.integers(len(words)))]
    return f"{colours[name]} {word}" if name in colours and rng.random() < colour_rate else word


def _with_article(rng: np.random.Generator, phrase: str) -> str:
    last = phrase.split()[-1]
    if phrase in _UNCOUNTED or last in _UNCOUNTED or (last.endswith("s") and last != "grass") or rng.random() < 0.3:
        return phrase
    if rng.random() < 0.3:
        return f"the {phrase}"
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"
