"""Names files, and text features on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clearclip import ClearCLIP, UserError
from clearclip.text import ClassWords, TextCache


def test_names_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffbackground\n person,  man ,woman\r\ndog\n\n")
    words = ClassWords.read(path)
    assert words.classes == (("background",), ("person", "man", "woman"), ("dog",))
    assert words.names == ["background", "person", "dog"]
    assert words.words == ["background", "person", "man", "woman", "dog"]
    assert words.word_to_class == [0, 1, 1, 1, 2]
    assert len(words) == 3


@pytest.mark.parametrize(
    "text, message", [("a\n  \nb", "line 2 is blank"), ("a\nb,,c", "line 2 .*empty word"), ("", "no class")]
)
def test_bad_names_file(tmp_path, text, message):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        ClassWords.read(tmp_path / "names.txt")


@pytest.fixture
def fresh(tiny_name, tmp_path, monkeypatch):
    """Makes models that share an empty cache, each with a list of the prompts that it encodes."""
    monkeypatch.setenv("CLEARCLIP_CACHE", str(tmp_path / "cache"))

    def make(**options):
        model, prompts = ClearCLIP.from_pretrained(tiny_name, device="cpu", **options), []
        tokenizer = model.text_encoder.tokenizer
        monkeypatch.setattr(model.text_encoder, "tokenizer", lambda texts: (prompts.extend(texts), tokenizer(texts))[1])
        return model, prompts

    return make


def test_words_are_encoded_once_in_a_lifetime(fresh, tmp_path):
    first, prompts = fresh()
    wanted = first.encode_text(["sky", "tree, bush"]).features
    assert len(prompts) == 3 * 80
    first.encode_text(["bush", "sky"])
    assert len(prompts) == 3 * 80
    second, prompts = fresh()
    assert torch.equal(second.encode_text(["sky", "tree, bush"]).features, wanted)
    assert prompts == []
    second.encode_text(["sky", "hill"])
    assert len(prompts) == 80
    without, prompts = fresh(cached=False)
    without.encode_text(["sky"])
    assert len(prompts) == 80
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4


def test_other_weights_have_other_features(fresh):
    first, _ = fresh()
    wanted = first.encode_text(["sky"]).features
    second, prompts = fresh()
    with torch.no_grad():
        second.text_encoder.model.text_projection.mul_(torch.linspace(0.5, 2, 32))
    assert not torch.allclose(second.encode_text(["sky"]).features, wanted, atol=1e-3)
    assert len(prompts) == 80


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_rebuilt(fresh, damage, tmp_path):
    model, _ = fresh()
    wanted = model.encode_text(["sky"]).features
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    again, prompts = fresh()
    torch.testing.assert_close(again.encode_text(["sky"]).features, wanted)
    assert len(prompts) == 80
    assert path.read_bytes() == whole


def test_many_write_at_once(tmp_path):
    cache = TextCache("key", tmp_path)

    def write(_):
        for index in range(50):
            cache.put(f"word {index}", torch.full((8,), float(index)))
            assert cache.get(f"word {index}", 8) is not None

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    assert all(torch.equal(cache.get(f"word {i}", 8), torch.full((8,), float(i))) for i in range(50))
    assert len(list(tmp_path.rglob("*"))) == 52  # two folders and no temporary file


def test_a_folder_that_cannot_be_written_costs_no_result(fresh, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    model, _ = fresh()
    assert model.encode_text(["sky"]).features.shape == (1, 32)


def test_long_words_are_named(fresh, recwarn):
    model, _ = fresh()
    model.encode_text(["a word of several words"])
    assert not recwarn.list
    with pytest.warns(UserWarning, match="'word word word.*too long for 24 tokens"):
        model.encode_text(["word " * 30])
