"""What all towers share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from clearclip.backbones import DenseEncoder


def test_what_is_kept_for_the_next_image_survives_threads():
    """More keys than are kept, from eight threads: none is missing, none is another one's."""
    encoder = DenseEncoder()
    keys = [(number % 24,) for number in range(4000)]
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda key: encoder.once(key, lambda: f"value {key}"), keys))
    assert values == [f"value {key}" for key in keys]
    assert len(encoder._cached) <= 9
