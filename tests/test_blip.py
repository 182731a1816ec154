"""BLIP: against transformers' own modules, and against the equations written as loops."""

import math
import sys

import numpy as np
import pytest
import torch
from hub import Hub
from torch.nn import functional as F

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.analysis.statistics import collect
from clearclip.checkpoints import choose_weights
from clearclip.encoders.blip import BLIPTokenizer, load_blip
from clearclip.encoders.blip.weights import TOWERS, configuration, load_retrieval_model
from clearclip.encoders.casting import cast
from clearclip.methods import GEM

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
WIDTH, LAYERS, SIZE, PATCH, TEXT_WIDTH, EMBED = 128, 7, 64, 16, 64, 24
VANILLA = LastBlock("qk", residual=True, ffn=True)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "the", "cat", "dog", "sky", "."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small random BLIP in Hugging Face's layout, with a small vocabulary."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("blip")
    config = transformers.BlipConfig(
        text_config=dict(
            vocab_size=len(WORDS),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=40,
        ),
        vision_config=dict(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=PATCH,
            layer_norm_eps=1e-6,
            initializer_range=0.02,
        ),
        image_text_hidden_size=EMBED,
    )
    model = transformers.BlipForImageTextRetrieval(config)
    with torch.no_grad():  # far from the tame initialisation: biases matter, attention is not flat
        for name, parameter in model.named_parameters():
            scale = 0.3 if "bias" in name or "embedding" in name else 2 / math.sqrt(parameter.shape[-1])
            parameter.add_(torch.randn_like(parameter) * scale)
    model.save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    return path


@pytest.fixture(scope="module")
def reference(folder):
    """transformers' own model of the same weights."""
    return transformers.BlipForImageTextRetrieval.from_pretrained(folder).float().eval()


def load(source, square=None, precision="fp32"):
    """Both towers."""
    return load_blip(choose_weights("BLIP", pretrained=str(source)), CPU, precision, square, cached=False)


def load_model(source):
    """transformers' module and the tokenizer's place."""
    return load_retrieval_model(choose_weights("BLIP", pretrained=str(source)))


def features(tower, image, method=VANILLA):
    with torch.no_grad():
        return tower(image, [method])[0]


def original_layout(model):
    """The state dict as BLIP's authors store it, written from the names in their modules."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("vision_model.embeddings.class_embedding", "visual_encoder.cls_token")
        name = name.replace("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed")
        name = name.replace("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj")
        name = name.replace("vision_model.post_layernorm", "visual_encoder.norm")
        name = name.replace("vision_model.encoder.layers", "visual_encoder.blocks")
        name = name.replace("layer_norm1", "norm1").replace("layer_norm2", "norm2")
        name = name.replace("self_attn.qkv", "attn.qkv").replace("self_attn.projection", "attn.proj")
        state[name] = tensor
    for name in [name for name in state if name.startswith(("visual_encoder.", "vision_proj.", "text_encoder."))]:
        tower, rest = name.split(".", 1)
        state[f"{tower}_m.{rest}"] = torch.zeros_like(state[name])
    return state | {
        "temp": torch.tensor(0.07),
        "image_queue": torch.zeros(EMBED, 8),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        "text_encoder.embeddings.position_ids": torch.arange(40)[None],
        "text_decoder.bert.embeddings.word_embeddings.weight": torch.zeros(3, 3),
    }


def loops(reference, image, attention, residual, ffn):
    """Section 1 of the method for one (3, H, W) image, head by head and token by token, in float64 NumPy."""
    seen = []
    last = reference.vision_model.encoder.layers[-1]
    handle = last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        reference.vision_model(image[None])
    handle.remove()
    x = seen[0][0].double().numpy()
    weight = {name: value.double().numpy() for name, value in last.state_dict().items()}

    def normalise(tokens, prefix, source=weight):
        centred = tokens - tokens.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * source[prefix + "weight"] + source[prefix + "bias"]

    mixed = normalise(x, "layer_norm1.") @ weight["self_attn.qkv.weight"].T + weight["self_attn.qkv.bias"]
    parts = dict(zip("qkv", np.split(mixed, 3, axis=1), strict=True))
    width = 64
    joined = np.zeros_like(x)
    for head in range(WIDTH // width):
        own = slice(head * width, (head + 1) * width)
        left, right = parts[attention[0]][:, own], parts[attention[1]][:, own]
        for i in range(len(x)):
            scores = np.array([left[i] @ right[j] / math.sqrt(width) for j in range(len(x))])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            joined[i, own] = sum(weights[j] * parts["v"][j, own] for j in range(len(x)))
    x_attn = joined @ weight["self_attn.projection.weight"].T + weight["self_attn.projection.bias"]
    x_sum = x + x_attn if residual else x_attn
    if ffn:
        hidden = normalise(x_sum, "layer_norm2.") @ weight["mlp.fc1.weight"].T + weight["mlp.fc1.bias"]
        hidden = np.vectorize(lambda value: value * 0.5 * (1 + math.erf(value / math.sqrt(2))))(hidden)
        x_sum = x_sum + hidden @ weight["mlp.fc2.weight"].T + weight["mlp.fc2.bias"]
    outer = {name: value.double().numpy() for name, value in reference.state_dict().items()}
    out = normalise(x_sum[1:], "vision_model.post_layernorm.", outer)
    return (out @ outer["vision_proj.weight"].T + outer["vision_proj.bias"]).reshape(SIZE // PATCH, SIZE // PATCH, -1)


@pytest.mark.parametrize("attention, keep", [("qq", False), ("qk", True)])
def test_dense_features_are_the_equations(folder, reference, attention, keep):
    image = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    ours = features(load(folder)[0], image[None], LastBlock(attention, residual=keep, ffn=keep))[0]
    expected = loops(reference, image, attention, keep, keep)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("square", [None, 96])
def test_vanilla_is_transformers_own_output_also_with_resized_positions(folder, reference, square):
    side = square or SIZE
    image = torch.randn(2, 3, side, side)
    with torch.no_grad():
        tokens = reference.vision_model(image, interpolate_pos_encoding=True).last_hidden_state
        expected = reference.vision_proj(tokens[:, 1:])
    ours = features(load(folder, square)[0], image)
    assert ours.shape == (2, side // PATCH, side // PATCH, EMBED)
    torch.testing.assert_close(ours.flatten(1, 2), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_windows_of_any_size_are_resized_to_the_square_first(folder):
    tower, image = load(folder)[0], torch.randn(1, 3, 50, 97)
    resized = F.interpolate(image, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features(tower, image), features(tower, resized))


def test_original_layout_gives_the_same_features(folder, reference, tmp_path):
    torch.save({"model": original_layout(reference), "epoch": 3}, tmp_path / "model_tiny.pth")
    (tmp_path / "vocab.txt").write_text((folder / "vocab.txt").read_text())
    image = torch.randn(1, 3, SIZE, SIZE)
    from_folder, from_file = load(folder, 80), load(tmp_path / "model_tiny.pth", 80)
    torch.testing.assert_close(features(from_file[0], image), features(from_folder[0], image), rtol=0, atol=0)
    texts = ["a photo of a cat.", "the dog"]
    with torch.no_grad():
        encoded = [text.model.encode_text(text.tokenizer(texts)) for _, text in (from_folder, from_file)]
    torch.testing.assert_close(encoded[1], encoded[0], rtol=0, atol=0)


def test_missing_and_left_over_weights_are_named(reference, tmp_path):
    path = tmp_path / "model.pth"
    state = original_layout(reference)
    del state["visual_encoder.blocks.3.attn.qkv.bias"]
    state["visual_encoder.blocks.2.adapter.weight"] = torch.zeros(1)
    torch.save({"model": state}, path)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert "lacks vision_model.encoder.layers.3.self_attn.qkv.bias" in str(caught.value)
    assert "left over visual_encoder.blocks.2.adapter.weight" in str(caught.value)
    torch.save({"model": {name: value for name, value in state.items() if "text_encoder." not in name}}, path)
    with pytest.raises(UserError, match=r"lacks text_encoder\.embeddings\.position_embeddings\.weight"):
        load_model(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read|was not run"),
        (b"not a checkpoint at all", "cannot be read|was not run"),
        ({"model": {"a": print}}, "was not run"),
        ({"model": [1, 2]}, "no state dict"),
    ],
)
def test_a_damaged_or_dangerous_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "model.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_model(path)


def test_weights_that_are_not_finite_are_named(reference, tmp_path):
    state = original_layout(reference)
    state["text_proj.weight"] = torch.full_like(state["text_proj.weight"], math.nan)
    torch.save({"model": state}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"NaN or infinite values in text_proj\.weight"):
        load_model(tmp_path / "model.pth")


def test_text_is_the_class_token_of_35_padded_tokens(folder, reference):
    _, text = load(folder)
    tokens = text.tokenizer(["a photo of a cat.", "dog " * 60])
    assert tokens["input_ids"].shape == (2, 35)
    ids = [WORDS.index(word) for word in ("[CLS]", "a", "photo", "of", "a", "cat", ".", "[SEP]")]
    assert tokens["input_ids"][0].tolist() == ids + [0] * 27
    assert tokens["attention_mask"].sum(dim=1).tolist() == [8, 35]
    with torch.no_grad():
        hidden = reference.text_encoder(torch.tensor([ids])).last_hidden_state  # unpadded: padding must not matter
        expected = reference.text_proj(hidden[:, 0])
        torch.testing.assert_close(text.model.encode_text(tokens)[:1], expected, rtol=1e-4, atol=1e-5)


def test_segments_through_the_public_object(folder):
    model = ClearCLIP.from_pretrained(
        clip_type="BLIP", pretrained=str(folder), slide_crop=32, slide_stride=16, short_side=None, device="cpu"
    )
    image = np.random.default_rng(0).integers(0, 255, (45, 70, 3), dtype=np.uint8)
    result = model.segment(image, ["cat", "dog", "the sky"])
    assert result.labels.shape == (45, 70)
    assert len(np.unique(result.labels)) > 1
    normalised, text = model.normalize(image.copy()), model.encode_text(["cat", "dog", "the sky"])
    ((similarity, _),) = model.similarities([normalised], text)
    assert similarity.shape == (2 * 2, 4 * 2, 3)  # windows at 0, 13 and 0, 16, 32, 38; two patches a side
    model = ClearCLIP.from_pretrained(clip_type="BLIP", pretrained=str(folder), slide_crop=0, device="cpu")
    ((similarity, _),) = model.similarities([normalised], text)
    assert similarity.shape == (SIZE // PATCH, SIZE // PATCH, 3)


def test_statistics_see_every_block(folder, reference):
    seen = []
    blocks = reference.vision_model.encoder.layers
    handles = [block.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])) for block in blocks]
    handles += [block.self_attn.register_forward_hook(lambda _m, _i, out: seen.append(out[0])) for block in blocks]
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        reference.vision_model(image)
    for handle in handles:
        handle.remove()
    found = collect(load(folder)[0], [image])
    expected = np.array([[float(x.norm()), float(attn.norm())] for x, attn in zip(seen[::2], seen[1::2], strict=True)])
    np.testing.assert_allclose(found.norm[:2].T, expected, rtol=1e-4)


def test_gem_runs_on_blip(folder):
    with torch.no_grad():
        vanilla, gem = load(folder)[0](torch.randn(1, 3, SIZE, SIZE), [VANILLA, GEM()])
    assert gem.shape == vanilla.shape
    assert not torch.allclose(gem, vanilla)


def test_half_precision_keeps_layer_norms_in_fp32(folder):
    image = torch.randn(1, 3, SIZE, SIZE)
    half = load(folder, precision="bf16")[0]
    assert half.vision_model.post_layernorm.weight.dtype == torch.float32
    assert half.vision_proj.weight.dtype == torch.bfloat16
    full, low = features(load(folder)[0], image, LastBlock()), features(half, image, LastBlock())
    assert low.dtype == torch.bfloat16
    assert F.cosine_similarity(full, low.float(), dim=-1).min() > 0.99


def test_cast_keeps_the_exact_values_of_layer_norms():
    tower = torch.nn.Sequential(torch.nn.LayerNorm(4, eps=1e-3), torch.nn.Linear(4, 4))
    weight = torch.tensor([0.1, 0.2, 1 / 3, 1.7])
    tower[0].weight.data.copy_(weight)
    cast(tower, "fp16")
    assert tower[0].weight.equal(weight)
    assert tower[0].eps == 1e-3
    assert tower(torch.ones(1, 4).half()).dtype == torch.float16


@pytest.mark.parametrize("name, width, layers", [("BLIP ViT-B/16", 768, 12), ("BLIP ViT-L/16", 1024, 24)])
def test_random_weights_have_the_real_architecture(name, width, layers):
    with torch.device("meta"):  # the real size, without its memory
        model = transformers.BlipForImageTextRetrieval(configuration(*TOWERS[name]))
    vision, text = model.vision_model, model.text_encoder
    assert vision.embeddings.position_embedding.shape == (1, 24 * 24 + 1, width)
    assert len(vision.encoder.layers) == layers
    assert vision.encoder.layers[0].self_attn.head_dim == 64
    assert text.embeddings.word_embeddings.weight.shape == (30524, 768)
    assert text.encoder.layer[0].attention.self.num_attention_heads == 12
    assert text.encoder.layer[0].crossattention.self.key.weight.shape == (768, width)
    assert model.text_proj.weight.shape == (256, 768)


def test_a_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        load_model("random")


def test_bad_requests_are_one_line(folder, tmp_path):
    with pytest.raises(UserError, match=r"set vit_type='ViT-L/16'"):
        wide = dict(vision=dict(patch_size=32, image_size=32), text=dict(num_hidden_layers=1))
        transformers.BlipForImageTextRetrieval(configuration(1024, 1, **wide)).save_pretrained(tmp_path / "large")
        load_model(tmp_path / "large")
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "model_base_14M.pth")
    with pytest.raises(UserError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="100 pixels are no such multiple of 16; set slide_crop to 96"):
        load(folder, square=100)
    with pytest.raises(UserError, match="takes no model_name"):
        ClearCLIP.from_pretrained("ViT-B-16", clip_type="BLIP", device="cpu")


def test_a_tokenizer_that_is_missing_is_told_when_words_are_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"tokenizer .* cannot be loaded"):
        BLIPTokenizer(str(tmp_path))(["a cat"])
    with pytest.raises(UserError, match=r"vocab\.txt of somebody/bert cannot be fetched"):
        BLIPTokenizer("somebody/bert")(["a cat"])


def test_the_published_checkpoint_is_fetched_once(reference, folder, tmp_path, monkeypatch):
    """From its authors' address, which is patched; the row knows which checkpoint it was."""
    torch.save({"model": original_layout(reference)}, tmp_path / "saved")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with Hub() as hub:
        hub.files["BLIP/models/model_base_14M.pth"] = (tmp_path / "saved").read_bytes()
        monkeypatch.setattr("clearclip.encoders.blip.weights.PUBLISHED", f"{hub.url}/BLIP/models/")
        model = ClearCLIP.from_pretrained(clip_type="BLIP", slide_crop=0, device="cpu")
    image = torch.randn(1, 3, SIZE, SIZE)
    torch.testing.assert_close(features(model.image_encoder, image), features(load(folder)[0], image))
    assert model.weights.label == "BLIP ViT-B/16 (model_base_14M)"
    again = ClearCLIP.from_pretrained(clip_type="BLIP", slide_crop=0, device="cpu")  # the server is gone
    torch.testing.assert_close(features(again.image_encoder, image), features(model.image_encoder, image))
