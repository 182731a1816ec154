"""Text features on disk: a file belongs to its word, model and length, and many may write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from clearclip.text import TextCache


def test_a_file_belongs_to_its_word_model_and_length(tmp_path):
    cache, other = TextCache("key", tmp_path), TextCache("other", tmp_path)
    sky, tree = torch.eye(8)[:2]
    cache.put("sky", sky)
    cache.put("tree", tree)
    cache.put("long", 2 * sky)
    assert torch.equal(cache.get("sky", 8), sky)
    assert cache.get("sky", 4) is None
    assert cache.get("long", 8) is None
    other.folder.mkdir(parents=True)
    other.path("sky").write_bytes(cache.path("sky").read_bytes())
    cache.path("sky").write_bytes(cache.path("tree").read_bytes())
    assert cache.get("sky", 8) is None
    assert other.get("sky", 8) is None


def test_many_write_at_once(tmp_path):
    cache = TextCache("key", tmp_path)

    def write(_):
        for index in range(50):
            cache.put(f"word {index}", torch.eye(50)[index])
            assert cache.get(f"word {index}", 50) is not None

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert all(torch.equal(cache.get(f"word {i}", 50), torch.eye(50)[i]) for i in range(50))
    assert len(list(tmp_path.rglob("*"))) == 52  # two folders and no temporary file
