"""Words to features: each once in a lifetime, from files that are whole, in any number of threads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from open_clip.tokenizer import get_clean_fn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tiny_reference import CLASSES, WORD_TO_CLASS, WORDS

from clearclip import ClearCLIP
from clearclip.text import ClassWords

#: Fixtures: the tiny model written out with loops.
pytest_plugins = ["tiny_reference"]


@pytest.fixture
def fresh(tiny_name, tmp_path, monkeypatch):
    """Makes models that share an empty cache, each with a list of the words that it encodes."""
    monkeypatch.setenv("CLEARCLIP_CACHE", str(tmp_path / "cache"))

    def make(**options):
        model, encoded = ClearCLIP.from_pretrained(tiny_name, device="cpu", **options), []
        encode = model.text_encoder._encode
        monkeypatch.setattr(
            model.text_encoder, "_encode", lambda words, bar: (encoded.extend(words), encode(words, bar))[1]
        )
        return model, encoded

    return make


def test_words_are_encoded_once_in_a_lifetime(fresh, tmp_path):
    first, encoded = fresh()
    wanted = first.encode_text(["sky", "tree | bush"]).features
    assert encoded == ["sky", "tree", "bush"]
    first.encode_text(["bush", "sky"])
    assert len(encoded) == 3
    second, encoded = fresh()
    assert torch.equal(second.encode_text(["sky", "tree | bush"]).features, wanted)
    assert encoded == []
    second.encode_text(["sky", "hill"])
    assert encoded == ["hill"]
    without, encoded = fresh(cached=False)
    without.encode_text(["sky"])
    assert encoded == ["sky"]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4


def _forget(model):
    """As a new process would find it."""
    model.text_encoder._features.clear()
    model.text_encoder._cache = None


def _other_weights(encoder):
    with torch.no_grad():
        encoder.model.text_projection.mul_(torch.linspace(0.5, 2, 32))


def _no_mask(encoder):
    encoder.model.attn_mask = None


def _first_token(encoder):
    encoder.model.text_pool_type = "first"


def _one_head(encoder):
    encoder.model.transformer.resblocks[0].attn.num_heads = 1
    encoder.model.transformer.resblocks[0].attn.head_dim = 32


def _other_epsilon(encoder):
    encoder.model.ln_final.eps = 0.5


def _other_activation(encoder):
    encoder.model.transformer.resblocks[0].mlp.gelu = torch.nn.ReLU()


def _upper_case(encoder):
    encoder.tokenizer.clean_fn = get_clean_fn("whitespace")


def _other_word_alone(encoder):
    encode = encoder.tokenizer.encode
    encoder.tokenizer.encode = lambda text: encode(text.replace("Sky", "sea"))


@pytest.mark.parametrize(
    "change",
    [
        _other_weights,
        _no_mask,
        _first_token,
        _one_head,
        _other_epsilon,
        _other_activation,
        _upper_case,
        _other_word_alone,
    ],
)
def test_another_tower_or_tokenizer_has_other_features(fresh, change):
    model, encoded = fresh()
    wanted = model.encode_text(["Sky"]).features
    change(model.text_encoder)
    _forget(model)
    assert not torch.allclose(model.encode_text(["Sky"]).features, wanted, atol=1e-3)
    assert encoded == ["Sky", "Sky"]


def _rewrite(path, change, **metadata):
    """Another feature under the metadata that the file has, but for what is named."""
    with safe_open(path, "pt") as file:
        feature, old = file.get_tensor("feature"), file.metadata()
    save_file({"feature": change(feature)}, path, metadata={**old, **metadata})


def _flip_a_bit(path):
    whole = bytearray(path.read_bytes())
    whole[-2] ^= 1
    path.write_bytes(whole)


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage"),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-60]),
    "a bit": _flip_a_bit,
    "fifo": _fifo,
    "no metadata": lambda path: save_file({"feature": torch.eye(32)[0]}, path),
    "another vector": lambda path: _rewrite(path, lambda feature: feature.flip(0)),
    "times 1000": lambda path: _rewrite(path, lambda feature: 1000 * feature),
    "in half": lambda path: _rewrite(path, lambda feature: feature.half()),
    "two rows": lambda path: _rewrite(path, lambda feature: feature.expand(2, -1).contiguous()),
    "another word": lambda path: _rewrite(path, lambda feature: feature, word="tree"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_rebuilt(fresh, damage, tmp_path):
    model, encoded = fresh()
    wanted = model.encode_text(["sky"]).features
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    DAMAGES[damage](path)
    for _ in range(2):
        _forget(model)
        torch.testing.assert_close(model.encode_text(["sky"]).features, wanted)
    assert encoded == ["sky", "sky"]


def test_a_full_disk_costs_no_result(fresh, tmp_path, monkeypatch):
    def full(state, path, metadata):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("clearclip.text.cache.save_file", full)
    model, _ = fresh()
    assert model.encode_text(["sky"]).features.shape == (1, 32)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_a_home_nothing_is_kept(fresh, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    model, _ = fresh()
    monkeypatch.delenv("CLEARCLIP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", nowhere)
    assert model.encode_text(["sky"]).features.shape == (1, 32)


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


#: Set to 1,000 for the long run.
CALLS = int(os.environ.get("CLEARCLIP_THREAD_CALLS", "60"))


def test_new_words_from_eight_threads_are_those_of_one(quick_name):
    """Prompts of many lengths at once: in no thread does the tower have another one's positional embeddings."""
    options = dict(device="cpu", cached=False, slide_crop=64, slide_stride=32, short_side=64)
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    calls = [[f"word {number}" + " x" * (number % 7), f"other {number}"] for number in range(CALLS)]
    in_threads, in_one = (ClearCLIP.from_pretrained(quick_name, **options) for _ in range(2))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda words: in_threads.segment(image, words), calls))
    for words, result in zip(calls, results, strict=True):
        expected = in_one.segment(image, words)
        assert np.array_equal(result.labels, expected.labels)
        assert torch.equal(in_threads.encode_text(words).features, in_one.encode_text(words).features)


def test_threads_that_share_words_get_one_feature(fresh):
    model, _ = fresh()
    with ThreadPoolExecutor(8) as pool:
        features = list(pool.map(lambda number: model.encode_text(["sky", f"tree {number}"]).features[0], range(32)))
    assert all(torch.equal(feature, features[0]) for feature in features)


def test_a_tokenizer_runs_in_one_thread_at_a_time(quick_name):
    """Hugging Face's fast tokenizers raise "Already borrowed" otherwise."""
    encoder = ClearCLIP.from_pretrained(quick_name, device="cpu").text_encoder
    tokenizer, free = encoder.tokenizer, threading.Lock()

    def alone(texts):
        assert free.acquire(blocking=False)
        try:
            return tokenizer(texts)
        finally:
            free.release()

    encoder.tokenizer = alone
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: encoder.encode(ClassWords.parse([f"word {number}"])), range(32)))


def test_features_are_those_of_the_templates_one_by_one(tiny_name, tiny_text):
    """Against OpenCLIP, prompt by prompt."""
    features = ClearCLIP.from_pretrained(tiny_name, device="cpu").encode_text(CLASSES)
    assert features.classes.words == WORDS
    assert features.word_to_class.tolist() == WORD_TO_CLASS
    np.testing.assert_allclose(features.features.numpy(), tiny_text, atol=1e-6)
