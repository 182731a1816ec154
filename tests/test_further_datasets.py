"""PC-459, ADE-847 and the remote-sensing sets: their files as they are on disk, evaluated, with mIoU by NumPy."""

import hashlib
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import FURTHER, make_layout, random_image
from mmengine.registry import DefaultScope
from mmseg.datasets import ISPRSDataset, LoveDADataset, PotsdamDataset, iSAIDDataset
from PIL import Image

from clearclip import ClearCLIP
from clearclip.commands.check_data_parser import DATASET_GROUPS
from clearclip.evaluation.config import class_words, load_config, model_settings
from clearclip.evaluation.dataset_report import check_dataset
from clearclip.evaluation.datasets import DATASETS, MappedDataset
from clearclip.evaluation.run import evaluate
from clearclip.text import TextEncoder, TextFeatures
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"
PAGE = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def quick_words(monkeypatch):
    """A feature of a word follows from its letters: a text tower would take minutes over 1,281 words."""

    def encode(self, classes, progress=False):
        drawn = [torch.randn(self.dim, generator=torch.Generator().manual_seed(zlib.crc32(w.encode())))
                 for w in classes.words]  # fmt: skip
        features = torch.nn.functional.normalize(torch.stack(drawn), dim=-1)
        return TextFeatures(classes, features, torch.tensor(classes.word_to_class))

    monkeypatch.setattr(TextEncoder, "encode", encode)


def mean_iou(truths, predictions, classes, ignored):
    """In percent, from one table of counts."""
    counts = np.zeros((classes, classes), np.int64)
    for truth, found in zip(truths, predictions, strict=True):
        kept = truth != ignored
        counts += np.bincount(truth[kept].astype(int) * classes + found[kept], minlength=classes**2).reshape(
            counts.shape
        )
    hit, union = np.diag(counts), counts.sum(0) + counts.sum(1) - np.diag(counts)
    return 100 * np.mean(hit[union > 0] / union[union > 0])


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


# The configs of docs/your_own_data.md, and what the masks have for each class and for what does not count, by hand.
ROAD, BUILDING, LOW, TREE, CAR, CLUTTER = (
    (255,) * 3,
    (0, 0, 255),
    (0, 255, 255),
    (0, 255, 0),
    (255, 255, 0),
    (255, 0, 0),
)
MAPPED = {
    "city_categories": (
        [(7, 8), (11, 12, 13), (17, 19, 20), (21, 22), (23,), (24, 25), (26, 27, 28, 31, 32, 33)],
        (0, 3, 6, 9, 18, 30, 255),
        "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", "gtFine/val/ulm/ulm_0_gtFine_labelIds.png",
    ),
    "potsdam_whole": (
        [(ROAD,), (BUILDING,), (LOW,), (TREE,), (CAR,), (CLUTTER,)], ((0, 0, 0),),
        "2_Ortho_RGB/top_potsdam_2_13_RGB.tif", "5_Labels_all_noBoundary/top_potsdam_2_13_label_noBoundary.tif",
    ),
}  # fmt: skip


@pytest.fixture(params=MAPPED)
def mapped(request, tmp_path, quick_name):
    """A config of the page, its mask file, and that mask's values and labels."""
    classes, skipped, image_name, mask_name = MAPPED[request.param]
    (page,) = re.findall(rf"```python\n([^`]*{request.param}.*?)```", PAGE, re.DOTALL)
    shutil.copytree(CONFIG, tmp_path / "config")
    (tmp_path / "config" / "cfg.py").write_text(page)
    rng, values = np.random.default_rng(3), [*(value for group in classes for value in group), *skipped]
    meaning = [*(label for label, group in enumerate(classes) for _ in group), *[255] * len(skipped)]
    drawn = rng.integers(0, len(values), (30, 40)).repeat(4, 0).repeat(4, 1)
    mask = np.array(values, np.uint8)[drawn]
    for name, array in ((image_name, random_image(rng, *drawn.shape)), (mask_name, mask)):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "data" / name)
    options = {"clip_type": None, "vit_type": None, "model_name": quick_name, "cached": False}
    overrides = {f"model.{key}": value for key, value in options.items()}
    cfg = load_config(tmp_path / "config" / "cfg.py", overrides, str(tmp_path / "data"))
    cfg.expected_images = None
    return cfg, tmp_path / "data" / mask_name, mask, np.array(meaning)[drawn]


def test_masks_with_other_ids_or_colours(mapped, tmp_path, quick_name):
    cfg, mask_path, _, truth = mapped
    assert check_dataset(cfg).complete
    (found,) = evaluate(cfg, tmp_path / "work", device="cpu", workers=0)
    model = ClearCLIP.from_pretrained(
        quick_name, device="cpu", cached=False, long_side=cfg.test_dataloader.dataset.pipeline[1].scale[0],
        slide_crop=cfg.model.slide_crop, slide_stride=cfg.model.slide_stride,
    )  # fmt: skip
    image = next(path for path in (tmp_path / "data").rglob("*.*") if path != mask_path)
    labels = model.segment(image, class_words(cfg)).labels
    expected = mean_iou([truth], [labels], len(cfg.words), 255)
    assert found.scores.summary["mIoU"] == pytest.approx(expected, abs=1e-3)


def test_what_a_mask_has_beyond_is_named(mapped):
    cfg, mask_path, mask, _ = mapped
    mask[5, 6] = 29 if mask.ndim == 3 else 1  # below the number of classes, and no class's
    cfg.test_dataloader.dataset.skipped = [one for one in cfg.test_dataloader.dataset.skipped if one != 1]
    Image.fromarray(mask).save(mask_path)
    (problem,) = check_dataset(cfg).problems
    what = "has the colour [29, 29, 29], which" if mask.ndim == 3 else "has id(s) [1], which"
    assert f"mask {mask_path} {what}" in problem


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(), "either ids or colours"),
        (dict(ids=[1], colours=[[0, 0, 0]]), "either ids or colours"),
        (dict(ids=[1, [2, 3]], skipped=[3]), "one of them twice"),
        (dict(ids=[1, [2, "3"]]), "give an id of 0 to 65535 for each class"),
        (dict(colours=[[0, 0, 256], [0, 0, 0]]), r"give \[red, green, blue\] of 0 to 255"),
        (dict(ids=[1, 2, 3]), "3 classes are in the masks, and metainfo has 2"),
    ],
)
def test_maps_that_cannot_be_meant(given, message):
    with pytest.raises(UserError, match=message):
        MappedDataset(metainfo=dict(classes=["a", "b"]), lazy_init=True, **given)
