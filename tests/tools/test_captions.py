"""Captions tell the truth."""

import re

import numpy as np
import open_clip
from captions import visible_names, write_caption
from scenes import draw_scene

from clearclip.miniature import CLASSES

# Every word by which a caption may name a class, written down apart from the module under test.
NAMED_BY = {
    "sky": r"sky|heavens",
    "cloud": r"clouds?",
    "sun": r"sun|sunshine",
    "balloon": r"balloons?",
    "mountain": r"mountains?|rocks",
    "snow": r"snow",
    "grass": r"grass|meadow|lawn",
    "water": r"water|lake|sea",
    "sand": r"sand|beach|dunes",
    "road": r"road|street|asphalt",
    "house": r"houses?|cottage",
    "tree": r"trees?",
    "boat": r"boats?|ship",
    "car": r"cars?|automobile",
}


def test_captions_name_nothing_but_what_is_visible():
    rng = np.random.default_rng(0)
    named = set()
    for seed in range(40):
        scene = draw_scene(seed)
        shares = {name: (scene.labels == label).mean() for label, name in enumerate(CLASSES)}
        visible = {name for name, share in shares.items() if share >= 0.03}
        names = visible_names(np.array(list(shares.values())))
        assert set(names) == visible
        for _ in range(20):
            caption = write_caption(rng, names, scene.colours)
            found = {name for name, words in NAMED_BY.items() if re.search(rf"\b({words})\b", caption)}
            assert found, caption
            assert found <= visible, caption
            for colour, word in re.findall(r"\b(red|blue|purple|orange|green|pink) (?:hot air )?(\w+)", caption):
                assert colour in {scene.colours.get(name) for name in found if re.fullmatch(NAMED_BY[name], word)}, (
                    caption
                )
            named |= found
    assert named == set(CLASSES)


def test_captions_use_every_imagenet_template():
    rng = np.random.default_rng(0)
    captions = {write_caption(rng, ["road"], {}) for _ in range(20_000)}
    assert {template("road") for template in open_clip.OPENAI_IMAGENET_TEMPLATES} <= captions
