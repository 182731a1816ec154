"""BLIP: against transformers' own modules, and against the equations written as loops."""

import math
import sys

import numpy as np
import pytest
import torch
from hub import Hub
from reference import Tower
from torch.nn import functional as F

from clearclip import ClearCLIP, LastBlock, UserError
from clearclip.backbones.blip import load_blip, weights
from clearclip.weights import choose_weights

transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
WIDTH, LAYERS, SIZE, PATCH, EMBED = 128, 7, 64, 16, 24
VANILLA = LastBlock("qk", residual=True, ffn=True)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "the", "cat", "dog", "sky", "."]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """BLIP's code makes models of this size, for the checkpoints of any size of image."""
    text = dict(vocab_size=len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    text |= dict(num_attention_heads=1, max_position_embeddings=40)

    def configuration(width=WIDTH, layers=LAYERS, image_size=SIZE):
        vision = dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=2)
        vision |= dict(image_size=image_size, patch_size=PATCH, layer_norm_eps=1e-6, initializer_range=0.02)
        return transformers.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=EMBED)

    monkeypatch.setattr(weights, "configuration", configuration)
    monkeypatch.setitem(weights.IMAGE_TOWERS, "BLIP ViT-B/16", (WIDTH, LAYERS))
    return configuration


@pytest.fixture
def reference(small):
    """transformers' own model with random weights."""
    torch.manual_seed(0)
    model = transformers.BlipForImageTextRetrieval(small()).eval()
    with torch.no_grad():  # far from the tame initialisation: biases matter, attention is not flat
        for name, parameter in model.named_parameters():
            scale = 0.3 if "bias" in name or "embedding" in name else 2 / math.sqrt(parameter.shape[-1])
            parameter.add_(torch.randn_like(parameter) * scale)
    return model


@pytest.fixture
def folder(reference, tmp_path):
    """The same in Hugging Face's layout, with a small vocabulary."""
    reference.save_pretrained(tmp_path / "blip")
    (tmp_path / "blip" / "vocab.txt").write_text("\n".join(WORDS))
    return tmp_path / "blip"


def load(source, square=None, precision="fp32"):
    """Both towers."""
    return load_blip(choose_weights("BLIP", pretrained=str(source)), CPU, precision, square, cached=False)


def features(tower, image, method=VANILLA):
    with torch.no_grad():
        return tower(image, [method])[0]


# Names of weights in the authors' modules, and transformers'.
NAMES = {
    "visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
    "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
    "visual_encoder.patch_embed.proj": "vision_model.embeddings.patch_embedding",
    "visual_encoder.norm": "vision_model.post_layernorm",
    "visual_encoder.blocks": "vision_model.encoder.layers",
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.qkv": "self_attn.qkv", "attn.proj": "self_attn.projection",
}  # fmt: skip


def original_layout(model):
    """The state dict as BLIP's authors store it, with what only training needs."""
    state = {
        "temp": torch.tensor(0.07),
        "image_queue": torch.zeros(EMBED, 8),
        "queue_ptr": torch.zeros(1, dtype=torch.long),
        "text_encoder.embeddings.position_ids": torch.arange(40)[None],
        "text_decoder.bert.embeddings.word_embeddings.weight": torch.zeros(3, 3),
    }
    for name, tensor in model.state_dict().items():
        for theirs, transformers_name in NAMES.items():
            name = name.replace(transformers_name, theirs)
        state[name] = tensor
        tower, rest = name.split(".", 1)
        if tower in ("visual_encoder", "vision_proj", "text_encoder"):
            state[f"{tower}_m.{rest}"] = torch.zeros_like(tensor)  # its moving average
    return state


@pytest.mark.parametrize("attention, keep", [("qq", False), ("qk", True)])
def test_dense_features_are_the_equations(folder, reference, attention, keep):
    """The last block from its input on, with loops in float64."""
    image = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    seen = []
    last = reference.vision_model.encoder.layers[-1]
    last.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        reference.vision_model(image[None])
    state = {}
    for name, tensor in last.state_dict().items():
        for theirs, ours in {
            "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.qkv.": "attn.in_proj_",
            "self_attn.projection": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
        }.items():  # fmt: skip
            name = name.replace(theirs, ours)
        state[f"visual.transformer.resblocks.0.{name}"] = tensor
    for name, tensor in reference.vision_model.post_layernorm.state_dict().items():
        state[f"visual.ln_post.{name}"] = tensor
    state["visual.proj"] = reference.vision_proj.weight.T
    tower = Tower({name: tensor.detach() for name, tensor in state.items()}, heads=2, patch=PATCH, quick_gelu=False)
    x = tower.run_block(0, seen[0][0].double().numpy(), attention, residual=keep, ffn=keep)
    expected = tower.finish(x, (4, 4)) + reference.vision_proj.bias.double().detach().numpy()
    ours = features(load(folder)[0], image[None], LastBlock(attention, residual=keep, ffn=keep))[0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("square", [None, 96])
def test_vanilla_is_transformers_own_output_also_with_resized_positions(folder, reference, square):
    side = square or SIZE
    tower, image = load(folder, square)[0], torch.randn(2, 3, side, side)
    with torch.no_grad():
        tokens = reference.vision_model(image, interpolate_pos_encoding=True).last_hidden_state
        expected = reference.vision_proj(tokens[:, 1:])
    ours = features(tower, image)
    assert ours.shape == (2, side // PATCH, side // PATCH, EMBED)
    torch.testing.assert_close(ours.flatten(1, 2), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    other = torch.randn(1, 3, 50, 97)  # windows of any size are resized to the square first
    resized = F.interpolate(other, size=(side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features(tower, other), features(tower, resized))


def test_original_layout_gives_the_same_features(folder, reference):
    torch.save({"model": original_layout(reference), "epoch": 3}, folder / "model_tiny.pth")
    image = torch.randn(1, 3, SIZE, SIZE)
    from_folder, from_file = load(folder, 80), load(folder / "model_tiny.pth", 80)
    torch.testing.assert_close(features(from_file[0], image), features(from_folder[0], image), rtol=0, atol=0)
    texts = ["a photo of a cat.", "the dog"]
    with torch.no_grad():
        encoded = [text.model.encode_text(text.tokenizer(texts)) for _, text in (from_folder, from_file)]
    torch.testing.assert_close(encoded[1], encoded[0], rtol=0, atol=0)


# A change of what is in the file, and what the line says.
FAULTS = {
    "missing": (lambda s: s.pop("visual_encoder.blocks.3.attn.qkv.bias"),
                r"lacks vision_model\.encoder\.layers\.3\.self_attn\.qkv\.bias"),
    "left_over": (lambda s: s.update({"visual_encoder.blocks.2.adapter.weight": torch.zeros(1)}),
                  r"left over vision_model\.encoder\.layers\.2\.adapter\.weight"),
    "other_shape": (lambda s: s.update({"text_proj.bias": torch.zeros(3)}), r"does not fit BLIP.*text_proj"),
    "nan": (lambda s: s["text_proj.weight"].fill_(math.nan), r"NaN or infinite values in text_proj\.weight"),
    "code": (lambda s: s.update(a=print), r"was not run \(beside weights it has a print\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_or_foreign_file_is_one_line(fault, reference, tmp_path):
    change, message = FAULTS[fault]
    state = {name: tensor.clone() for name, tensor in original_layout(reference).items()}
    change(state)
    torch.save({"model": state}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "model.pth")


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
    options = dict(clip_type="BLIP", pretrained=str(folder), short_side=None, device="cpu")
    model = ClearCLIP.from_pretrained(slide_crop=32, slide_stride=16, **options)
    image = np.random.default_rng(0).integers(0, 255, (45, 70, 3), dtype=np.uint8)
    result = model.compare(image, ["cat", "dog", "the sky"], ["ClearCLIP", "GEM"])
    assert result["GEM"].labels.shape == (45, 70)
    assert len(np.unique(result["ClearCLIP"].labels)) > 1
    normalised, text = model.normalize(image.copy()), model.encode_text(["cat", "dog", "the sky"])
    ((scores,),) = model.similarities([normalised], text)
    assert scores.scores.shape == (2 * 2, 4 * 2, 3)  # windows at 0, 13 and 0, 16, 32, 38; two patches a side
    model = ClearCLIP.from_pretrained(slide_crop=0, **options)
    ((scores,),) = model.similarities([normalised], text)
    assert scores.scores.shape == (SIZE // PATCH, SIZE // PATCH, 3)


def test_half_precision_keeps_layer_norms_in_fp32(folder):
    image = torch.randn(1, 3, SIZE, SIZE)
    half = load(folder, precision="bf16")[0]
    assert half.vision_model.post_layernorm.weight.dtype == torch.float32
    assert half.vision_proj.weight.dtype == torch.bfloat16
    full, low = features(load(folder)[0], image, LastBlock()), features(half, image, LastBlock())
    assert low.dtype == torch.bfloat16
    assert F.cosine_similarity(full, low.float(), dim=-1).min() > 0.99


@pytest.mark.parametrize("name, width, layers", [("BLIP ViT-B/16", 768, 12), ("BLIP ViT-L/16", 1024, 24)])
def test_random_weights_have_the_real_architecture(name, width, layers, monkeypatch):
    monkeypatch.undo()
    with torch.device("meta"):  # the real size, without its memory
        model = transformers.BlipForImageTextRetrieval(weights.configuration(*weights.IMAGE_TOWERS[name]))
    vision, text = model.vision_model, model.text_encoder
    assert vision.embeddings.position_embedding.shape == (1, 24 * 24 + 1, width)
    block = vision.encoder.layers[layers - 1]
    assert (len(vision.encoder.layers), block.self_attn.head_dim, block.layer_norm1.eps) == (layers, 64, 1e-6)
    assert text.embeddings.word_embeddings.weight.shape == (30524, 768)
    assert text.encoder.layer[0].attention.self.num_attention_heads == 12
    assert text.encoder.layer[0].crossattention.self.key.weight.shape == (768, width)
    assert model.text_proj.weight.shape == (256, 768)


def test_bad_requests_are_one_line(folder, tmp_path, monkeypatch):
    (tmp_path / "text.pth").write_text("not a checkpoint at all")
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path / "text.pth")
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "model_base_14M.pth")
    with pytest.raises(UserError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(UserError, match="100 pixels are no multiple of 16; set slide_crop to 96"):
        load(folder, square=100)
    with pytest.raises(UserError, match="takes no model_name"):
        ClearCLIP.from_pretrained("ViT-B-16", clip_type="BLIP", device="cpu")
    monkeypatch.setitem(weights.IMAGE_TOWERS, "BLIP ViT-B/16", (WIDTH + 64, LAYERS))
    monkeypatch.setitem(weights.IMAGE_TOWERS, "BLIP ViT-L/16", (WIDTH, LAYERS))
    with pytest.raises(UserError, match=r"set vit_type='ViT-L/16'"):
        load(folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        load("random")


def test_a_tokenizer_that_is_missing_is_told_when_words_are_encoded(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"tokenizer cannot be loaded from .*; put bert-base-uncased's vocab\.txt"):
        load(folder)[1].tokenizer(["a cat"])
    with pytest.raises(UserError, match=r"vocab\.txt or tokenizer\.json of google-bert/.* cannot be fetched"):
        load("random")[1].tokenizer(["a cat"])


def test_the_published_checkpoint_is_fetched_once(reference, folder, tmp_path, monkeypatch):
    """From its authors' address, which is patched; the row knows which checkpoint it was."""
    torch.save({"model": original_layout(reference)}, tmp_path / "saved")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    with Hub() as hub:
        hub.files["BLIP/models/model_base_14M.pth"] = (tmp_path / "saved").read_bytes()
        monkeypatch.setattr(weights, "BLIP_ADDRESS", f"{hub.url}/BLIP/models/")
        model = ClearCLIP.from_pretrained(clip_type="BLIP", slide_crop=0, device="cpu")
    image = torch.randn(1, 3, SIZE, SIZE)
    torch.testing.assert_close(features(model.image_encoder, image), features(load(folder)[0], image))
    assert model.weights.label == "BLIP ViT-B/16 (model_base_14M)"
    again = ClearCLIP.from_pretrained(clip_type="BLIP", slide_crop=0, device="cpu")  # the server is gone
    torch.testing.assert_close(features(again.image_encoder, image), features(model.image_encoder, image))
