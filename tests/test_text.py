"""Names files, text features on disk, and prompts that are cut where it is exact."""

from __future__ import annotations

import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import open_clip
import pytest
import reference
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tiny import named_weights
from transformers import BertConfig, BertModel

from clearclip import ClearCLIP, UserError
from clearclip.text import ClassWords, TextCache, TextEncoder
from clearclip.text.encoder import TEMPLATES


def test_names_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffbackground\n person,  man ,woman\r\ndog\n\n")
    words = ClassWords.read(path)
    assert words.classes == (("background",), ("person", "man", "woman"), ("dog",))
    assert words.names == ["background", "person", "dog"]
    assert ClassWords.parse(["sky", "tree", "sky", "tree | oak"]).names == ["sky", "tree", "sky (2)", "tree|oak"]
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


@pytest.mark.parametrize("letter", ["\a", "\x85", "\udcff"])
def test_what_is_no_text_is_no_word(letter):
    with pytest.raises(UserError, match=r"line 2 .* control character or is no text"):
        ClassWords.parse(["sky", f"a{letter}b"])


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
    wanted = first.encode_text(["sky", "tree, bush"]).features
    assert encoded == ["sky", "tree", "bush"]
    first.encode_text(["bush", "sky"])
    assert len(encoded) == 3
    second, encoded = fresh()
    assert torch.equal(second.encode_text(["sky", "tree, bush"]).features, wanted)
    assert encoded == []
    second.encode_text(["sky", "hill"])
    assert encoded == ["hill"]
    without, encoded = fresh(cached=False)
    without.encode_text(["sky"])
    assert encoded == ["sky"]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 4


def _forget(model):
    """As a new process would find it."""
    model.text_encoder._known.clear()
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


VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


TOKENIZER = SimpleTokenizer(context_length=24)


class WithMask(torch.nn.Module):
    """A tower that takes tokens and a mask, as BLIP's does."""

    def __init__(self):
        super().__init__()
        self.bert = BertModel(_bert())

    def encode_text(self, tokens):
        return self.bert(**tokens).last_hidden_state[:, 0]


def _bert(**options):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=49408)
    return BertConfig(**sizes, max_position_embeddings=24, **options)


def _clip(kind="CLIP", **text):
    return getattr(open_clip, kind)(embed_dim=32, vision_cfg=VISION, text_cfg={**TEXT, **text})


def _hugging_face(pooler="mean_pooler", **options):
    model = _clip("CustomTextCLIP")
    model.text = HFTextEncoder("", 32, config=_bert(**options), pooler_type=pooler, proj_type="linear")
    return model


#: Models, and whether their prompts can be cut.
TOWERS = {
    "end": (_clip, True),
    "end by its number": (functools.partial(_clip, pool_type="eos", eos_id=49407), True),
    "own tower": (functools.partial(_clip, "CustomTextCLIP"), True),
    "own tower, by number": (functools.partial(_clip, "CustomTextCLIP", pool_type="eos", eos_id=49407), True),
    "other blocks": (functools.partial(_clip, qk_norm=True, scale_attn=True, scale_heads=True), True),
    "mean with mask": (_hugging_face, True),
    "class token with mask": (functools.partial(_hugging_face, "cls_last_hidden_state_pooler"), True),
    "mask beside tokens": (WithMask, True),
    "sees all": (functools.partial(_clip, no_causal_mask=True), False),
    "own tower sees all": (functools.partial(_clip, "CustomTextCLIP", no_causal_mask=True), False),
    "last token": (functools.partial(_clip, pool_type="last"), False),
    "appended class token": (functools.partial(_clip, "CustomTextCLIP", embed_cls=True), False),
    "other padding": (functools.partial(_hugging_face, pad_token_id=1), False),
}


@pytest.mark.parametrize("tower", TOWERS)
def test_prompts_are_cut_where_that_is_exact(tower, monkeypatch):
    make, cut = TOWERS[tower]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    model.load_state_dict(named_weights(model.state_dict()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokenizer, widths, words = TOKENIZER, set(), ["traffic light", "word " * 30]
    if tower == "mask beside tokens":
        tokenizer = lambda texts: {"input_ids": (ids := TOKENIZER(texts)), "attention_mask": (ids != 0).long()}  # noqa: E731
    wanted = torch.from_numpy(reference.text_features(model, tokenizer, words, TEMPLATES))
    encode = type(model).encode_text
    width = lambda tokens: (tokens["input_ids"] if isinstance(tokens, dict) else tokens).shape[1]  # noqa: E731
    spy = lambda self, tokens: (widths.add(width(tokens)), encode(self, tokens))[1]  # noqa: E731
    monkeypatch.setattr(type(model), "encode_text", spy)
    found = TextEncoder(model, tokenizer, dim=32, cached=False).encode(ClassWords.parse(words)).features
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=0)
    assert max(widths) == 24
    assert (min(widths) < 9) == cut
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "odd", ["0: unlabeled", "7\ttree", "tree\t[107, 142, 35]", '{"0": "tree"}', '["sky", "tree"]', "3. sky"]
)
def test_a_names_file_that_is_none(odd, tmp_path):
    """A hint; words that begin with a number are words."""
    file = tmp_path / "names.txt"
    file.write_text(f"3d printer, 2 wheeler\n{odd}\n")
    with pytest.warns(UserWarning, match="is taken as words; a line is a class"):
        ClassWords.read(file)
    file.write_text("3d printer, 2 wheeler\nsky\t\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ClassWords.read(file)) == 2
