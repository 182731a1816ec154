"""The evaluation's path on a GPU, from the loader's bytes to counts, on a GPU that computes nothing."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import timm
import torch
from dense_folders import tips_folder
from mmseg.structures import SegDataSample
from simulated_gpu import CUDA, Counter, Record, SimulatedStream, move_module, on_gpu
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from clearclip import ClearCLIP
from clearclip.evaluation.confusion import count_batch
from clearclip.evaluation.segmentor import ClearCLIPSegmentation, FrozenModelWrapper
from clearclip.methods import sfr
from clearclip.text import TextFeatures
from clearclip.windows import lab_colours, score_map, window_grid


class OneMode(FakeTensorMode):
    """A copied tensor (timm copies its rotations for images of another size) stays on the same simulated GPU."""

    def __deepcopy__(self, memo: dict) -> OneMode:
        return self


WORDS = [f"word {number}" for number in range(21)]
#: One for all tests: tensors that the package keeps for the next batch belong to it.
MODE = OneMode()
NATIVE_PRECISIONS = ("fp32", "fp16", "bf16")
PRECISIONS = (*NATIVE_PRECISIONS, "mixed")
#: Methods whose features and scores are computed for all windows at once.
BATCHED = (
    "ClearCLIP",
    "CLIP",
    "MaskCLIP",
    "SCLIP",
    "GEM",
    "NACLIP",
    {"type": "RCS", "base": "NACLIP", "layers": [2, 3]},
)
#: Methods that look at one window or image after the other in some step.
FURTHER = (
    "PEARL",
    {"type": "SC-CLIP", "pre": 3, "post": 2, "summed": [2, 3, 4], "rho": 0.3},
    {"type": "SFR", "base": {"type": "RCS", "base": "NACLIP", "layers": [2, 3]}},
    {"type": "ProxyCLIP", "guide": "untrained-vit4"},
)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left():
    """No matrix of the simulated GPU stays for other tests."""
    yield
    window_grid._cached_weights.clear()
    for cached_by_device in (sfr._distance, sfr._points_on_lines, sfr._smoothing, lab_colours.constant):
        cached_by_device.cache_clear()


@pytest.fixture(autouse=True)
def host_computes(monkeypatch):
    """How an output is cut into tiles is computed on the host, which is not simulated."""

    def on_the_host(function):
        def call(*arguments):
            with unset_fake_temporarily():
                return function(*arguments)

        return call

    monkeypatch.setattr(window_grid, "_bands_of_axis", on_the_host(window_grid._bands_of_axis))
    monkeypatch.setattr(score_map, "resize_bands", on_the_host(score_map.resize_bands))


@pytest.fixture(autouse=True)
def no_text_tower(monkeypatch):
    """Words have features of zeros, and every precision may be asked for."""

    def encode(self, classes, progress=False):
        features = torch.zeros(len(classes.words), self.image_encoder.dim)
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    monkeypatch.setattr(ClearCLIP, "encode_text", encode)
    monkeypatch.setattr("clearclip.utils.devices.possible_precisions", lambda device: [*PRECISIONS])


def simulate(model: ClearCLIP, methods: list[str], images: int, size: tuple[int, int], **settings) -> Record:
    """What a batch asks of the GPU; the matrices that images of one size share are there from a batch before."""
    options = {"model": copy.deepcopy(model), "methods": methods, **settings}
    segmentor = ClearCLIPSegmentation(class_names=WORDS, **options)
    segmentor.marks_invalid = True
    move_module(MODE, segmentor)
    text = segmentor._text
    segmentor._text = TextFeatures(text.classes, on_gpu(MODE, text.features), on_gpu(MODE, text.word_to_class))
    for _ in range(2):
        counter = Counter()
        with MODE, counter, torch.inference_mode():
            inputs = [torch.empty(3, *size, dtype=torch.uint8) for _ in range(images)]
            samples = [SegDataSample(metainfo={"ori_shape": size}) for _ in range(images)]
            truths = [torch.empty(size, dtype=torch.uint8) for _ in range(images)]
            samples = FrozenModelWrapper(segmentor).test_step({"inputs": inputs, "data_samples": samples})
            predictions = [sample.pred_methods.data for sample in samples]
            stream = SimulatedStream(counter.record)
            with mock.patch("torch.cuda.current_stream", return_value=stream):
                counts = count_batch(truths, predictions, len(WORDS), 255)
            waits_of_queueing = list(counter.record.waits)
            assert not counts.is_complete
            counts.read()
    # A batch is queued as a whole, and its counts are read while the next one is prepared.
    assert waits_of_queueing == []
    return counter.record


def check_transfers(record: Record) -> None:
    """Images and truth go in, counts come out, and the host waits for these only."""
    assert [(source, target) for source, target, _ in record.transfers] == [("cpu", "cuda")] * 2 + [("cuda", "cpu")]
    assert record.waits == ["event"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", BATCHED, ids=str)
def test_a_batch_waits_once(tiny_name, method, precision):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", precision=precision)
    check_transfers(simulate(model, [method], 3, (96, 128), slide_crop=64, slide_stride=32))


SIX_WINDOWS = dict(slide_crop=64, slide_stride=32)
#: Each precision with the image as a whole or with six windows of it.
PRECISIONS_AND_WINDOWS = [
    ("fp32", dict(slide_crop=0)),
    ("fp16", SIX_WINDOWS),
    ("bf16", dict(slide_crop=0)),
    ("mixed", SIX_WINDOWS),
]


@pytest.mark.parametrize(("precision", "windows"), PRECISIONS_AND_WINDOWS, ids=str)
@pytest.mark.parametrize("method", FURTHER, ids=str)
def test_methods_that_take_one_window_at_a_time(tiny_name, method, precision, windows):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", precision=precision)
    check_transfers(simulate(model, [method], 2, (96, 128), **windows))


@pytest.mark.parametrize(("precision", "windows"), PRECISIONS_AND_WINDOWS, ids=str)
@pytest.mark.parametrize("post", ["pamr", "tlp", {"type": "lposs+", "steps": 2}], ids=str)
def test_post_processings(tiny_name, post, precision, windows):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", precision=precision)
    check_transfers(simulate(model, ["ClearCLIP"], 2, (96, 128), post=post, **windows))


@pytest.mark.parametrize("options", [{"prob_thd": 0.3}, {"area_thd": 0.1}, {"prob_thd": 0.3, "area_thd": 0.1}], ids=str)
def test_thresholds(tiny_name, options):
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu", precision="fp16")
    check_transfers(simulate(model, ["ClearCLIP"], 2, (96, 128), **SIX_WINDOWS, **options))


@pytest.mark.parametrize("precision", NATIVE_PRECISIONS)
def test_eva(precision, monkeypatch):
    create = timm.create_model
    small = {"embed_dim": 64, "num_heads": 4, "depth": 2}
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: create(*args, **options, **small))
    model = ClearCLIP.from_pretrained("EVA02-B-16", "random", device="cpu", precision=precision)
    check_transfers(simulate(model, ["ClearCLIP"], 2, (224, 224), slide_crop=0))


@pytest.mark.parametrize("precision", NATIVE_PRECISIONS)
def test_dense_models(tmp_path, precision):
    model = ClearCLIP.from_pretrained(str(tips_folder(tmp_path)), device="cpu", precision=precision)
    check_transfers(simulate(model, ["CLIP"], 2, (84, 84), slide_crop=0))
    # Its probabilities are averaged over windows at the size of the image.
    check_transfers(simulate(model, ["CLIP"], 2, (84, 98), slide_crop=56, slide_stride=28))


@pytest.mark.parametrize("tower", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_towers_of_both_families(tower, monkeypatch):
    monkeypatch.setattr("clearclip.backbones.clip_loading.load_tokenizer", lambda *_: None)
    model = ClearCLIP.from_pretrained(tower, "random", device="cpu", precision="fp16")
    check_transfers(simulate(model, ["ClearCLIP"], 2, (224, 224), slide_crop=0))


@pytest.fixture(scope="module")
def base_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clearclip.utils.devices.possible_precisions", lambda device: [*PRECISIONS])
        return ClearCLIP.from_pretrained("ViT-B-16-quickgelu", "random", device="cpu", precision="fp16")


def test_sfp(base_model):
    """Its layers are those of 12 blocks."""
    check_transfers(simulate(base_model, ["SFP"], 2, (224, 224), slide_crop=0))


def test_kernels_of_a_batch(base_model):
    """Of a ViT-B/16 in half precision with two windows an image. An operator that PyTorch fuses counts as one."""
    size, windows = (448, 597), dict(slide_crop=448, slide_stride=224)
    of_eight = simulate(base_model, ["ClearCLIP"], 8, size, **windows)
    assert sum(of_eight.kernels.values()) / 8 <= 20
    of_32 = simulate(base_model, ["ClearCLIP"], 32, size, **windows)
    assert sum(of_32.kernels.values()) / 32 <= 8
    of_two_rows = simulate(base_model, ["ClearCLIP", "SCLIP"], 32, size, **windows)
    assert (sum(of_two_rows.kernels.values()) - sum(of_32.kernels.values())) / 32 <= 4
    for record in (of_eight, of_32, of_two_rows):
        check_transfers(record)


@pytest.mark.parametrize("mistake", ["item", "constant", "mask"])
def test_mistakes_are_noticed(mistake):
    """A value that is waited for, a tensor of another device, a shape that depends on values."""
    counter = Counter()
    tensor = on_gpu(MODE, torch.zeros(4))
    with MODE, counter:
        if mistake == "item":
            tensor.sum().item()
            assert counter.record.waits == ["_local_scalar_dense"]
            return
        error = RuntimeError if mistake == "constant" else Exception
        with pytest.raises(error):
            _ = tensor + torch.ones(4) if mistake == "constant" else tensor[tensor > 0]
    assert tensor.device == CUDA
