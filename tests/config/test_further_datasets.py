"""PC-459, ADE-847 and the remote-sensing sets: their files as they are on disk, evaluated, with mIoU by NumPy."""

import hashlib
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import FURTHER, make_layout, random_image
from mmengine.registry import DefaultScope
from mmseg.datasets import ISPRSDataset, LoveDADataset, PotsdamDataset, iSAIDDataset
from numpy_scores import mean_iou

from clearclip import ClearCLIP
from clearclip.commands.check_data_parser import DATASET_GROUPS
from clearclip.evaluation.config import class_words, load_config, model_settings
from clearclip.evaluation.dataset_report import check_dataset
from clearclip.evaluation.datasets import DATASETS
from clearclip.evaluation.run import evaluate
from clearclip.text import TextEncoder, TextFeatures

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"


@pytest.fixture(autouse=True)
def quick_words(monkeypatch):
    """A feature of a word follows from its letters: a text tower would take minutes over 1,281 words."""

    def encode(self, classes, progress=False):
        drawn = [torch.randn(self.dim, generator=torch.Generator().manual_seed(zlib.crc32(w.encode())))
                 for w in classes.words]  # fmt: skip
        features = torch.nn.functional.normalize(torch.stack(drawn), dim=-1)
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    monkeypatch.setattr(TextEncoder, "encode", encode)


@pytest.mark.parametrize("name", FURTHER)
def test_config_evaluates_the_files_as_they_are(name, tmp_path, quick_name):
    images = 2 if name in ("potsdam", "vaihingen", "isaid") else 1  # the others are large, or have many classes
    made = make_layout(name, tmp_path, images)
    options = {"clip_type": None, "vit_type": None, "model_name": quick_name, "cached": False}
    cfg = load_config(
        CONFIG / f"cfg_{name}.py", {f"model.{key}": value for key, value in options.items()}, str(tmp_path)
    )
    assert Path(cfg.test_dataloader.dataset.data_root) == made["data_root"]
    assert cfg.dataset_name == name
    cfg.expected_images = images
    assert check_dataset(cfg, sample=None).complete
    (found,) = evaluate(cfg, tmp_path / "work", device="cpu", workers=0)
    assert (found.images, len(found.classes)) == (images, made["num_classes"])

    (_, resize, _, _), settings = cfg.test_dataloader.dataset.pipeline, cfg.model
    long_side, short_side = resize["scale"]
    model = ClearCLIP.from_pretrained(
        quick_name, device="cpu", cached=False, short_side=short_side, long_side=long_side,
        slide_crop=settings.slide_crop, slide_stride=settings.slide_stride,
    )  # fmt: skip
    words = class_words(cfg)
    predictions = [model.segment(path, words, prob_thd=settings.get("prob_thd", 0)).labels for path in made["images"]]
    assert all(len(np.unique(labels)) > 1 for labels in predictions)
    ignored = FURTHER[name].unlabelled or 255
    assert found.scores.summary["mIoU"] == pytest.approx(
        mean_iou(made["labels"], predictions, made["num_classes"], ignored), abs=1e-3
    )


# A second source of the long lists, ProxyCLIP's names files: how many, and a hash of their letters, one class a line.
LONG = {"pc459": (459, "9ab452f98160a913"), "ade847": (847, "76f4a0eec1c92d38")}
# What the ids 0, 1, … (1, 2, … where 0 is ignored) are called by MMSegmentation or, where it has no such dataset, by
# its makers: open-earth-map.org, uavid.nl, github.com/MarcWong/UDD, github.com/RussRobin/VDD.
SHORT = {
    "loveda": LoveDADataset.METAINFO["classes"],
    "potsdam": PotsdamDataset.METAINFO["classes"],
    "vaihingen": ISPRSDataset.METAINFO["classes"],
    "isaid": iSAIDDataset.METAINFO["classes"],
    "openearthmap": [
        "background",
        "bareland",
        "rangeland",
        "developed space",
        "road",
        "tree",
        "water",
        "agriculture land",
        "building",
    ],
    "uavid": ["background clutter", "building", "road", "car", "tree", "low vegetation", "human"],
    "udd5": ["vegetation", "building", "road", "vehicle", "other"],
    "vdd": ["other", "wall", "road", "vegetation", "vehicle", "roof", "water"],
}
# Classes that SegEarth-OV, whose words these are, asks for by another word.
REWORDED = {
    ("potsdam", "impervious_surface"): "road",
    ("openearthmap", "rangeland"): "grass",
    ("openearthmap", "developed space"): "pavement",
    ("openearthmap", "agriculture land"): "cropland",
    ("uavid", "background clutter"): "background",
    ("uavid", "low vegetation"): "vegetation",
    ("udd5", "other"): "background",
    ("vdd", "other"): "background",
    ("vdd", "wall"): "facade",
}


@pytest.mark.parametrize("name", LONG)
def test_long_lists_of_classes(name):
    lines = (CONFIG / f"cls_{name}.txt").read_text().splitlines()
    letters = "\n".join(re.sub("[^a-z]", "", line.lower()) for line in lines)
    assert (len(lines), hashlib.sha256(letters.encode()).hexdigest()[:16]) == LONG[name]


def test_classes_that_begin_with_the_same_word_are_classes_of_their_own():
    classes = class_words(load_config(CONFIG / "cfg_ade847.py"))
    assert (len(classes), len({words[0] for words in classes.classes}), len(classes.words)) == (847, 837, 1281)
    assert len(set(classes.names)) == 847
    assert [name for name in classes.names if name.split("|")[0] == "pier"] == ["pier|wharf|wharfage|dock", "pier"]


@pytest.mark.parametrize("name", SHORT)
def test_short_lists_of_classes(name, tmp_path):
    cfg = load_config(CONFIG / f"cfg_{name}.py", data_root=str(tmp_path))
    (tmp_path / "img_dir" / "val").mkdir(parents=True)  # MMSegmentation's iSAID looks for it
    order = FURTHER[name].order or range(len(SHORT[name]))
    labels = [SHORT[name][order.index(label)] for label in range(len(order))]
    assert class_words(cfg).names == [REWORDED.get((name, one), one.lower().replace("_", " ")) for one in labels]
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build({**cfg.test_dataloader.dataset, "lazy_init": True})
    own = type(dataset).METAINFO.get("classes")
    lines = Path(cfg.model.name_path).read_text().splitlines()
    assert list(dataset.metainfo["classes"]) == (lines if own is None else labels)


def test_protocols_of_the_papers():
    thresholds = dict(loveda=0.3, potsdam=0.1, vaihingen=0.1, isaid=0.4, openearthmap=0.1, uavid=0.3, udd5=0.4, vdd=0.3)
    for name in FURTHER:
        cfg = load_config(CONFIG / f"cfg_{name}.py")
        settings, remote = model_settings(cfg), name in thresholds
        assert settings.prob_thd == thresholds.get(name, 0)
        assert (settings.slide_crop, settings.slide_stride) == ((224, 112) if remote else (448, 224))
        assert settings.logit_scale == 50
        assert cfg.test_dataloader.dataset.pipeline[1].scale == ((448, 448) if remote else (2048, 448))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
def test_847_classes_on_a_large_image_in_bounded_memory(quick_name):
    """Probabilities of all 1,281 words at this size would be 1.5 GB, and of all classes 1 GB."""

    def status(field):
        return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024

    words = class_words(load_config(CONFIG / "cfg_ade847.py"))
    model = ClearCLIP.from_pretrained(quick_name, device="cpu", cached=False)
    image = random_image(np.random.default_rng(0), 144, 2000)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    labels = model.segment(image, words).labels
    assert status("VmHWM") - before < 400
    assert labels.shape == (144, 2000)
    assert len(np.unique(labels)) > 1


def test_the_page_of_datasets_says_what_the_configs_do():
    page = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `cfg_(\w+)` (\|.*)", page, re.MULTILINE))
    assert [*rows][-len(FURTHER) :] == f"{DATASET_GROUPS['large']} {DATASET_GROUPS['remote']}".split()
    for name in FURTHER:
        cfg, cells = load_config(CONFIG / f"cfg_{name}.py"), rows[name].split(" | ")
        assert int(re.match(r"\d+", cells[1]).group()) == len(class_words(cfg))
        assert cells[2] == (f"{cfg.expected_images:,}" if "expected_images" in cfg else "–")
        assert cells[3] == f"`{cfg.test_dataloader.dataset.data_root}` |"
