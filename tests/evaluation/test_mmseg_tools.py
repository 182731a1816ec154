"""MMSegmentation's and MMEngine's own tools on this project's segmentor and configs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

from clearclip import ClearCLIP, UserError
from clearclip.commands.command_line import CommandParser
from clearclip.commands.key_values import KeyValues
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import load_config
from clearclip.evaluation.mmengine_runner import build_loader
from clearclip.evaluation.run import evaluate

CONFIG = Path(__file__).resolve().parents[2] / "config" / "cfg_miniature.py"
WORDS = ["sky", "tree", "horse"]
SCENES = sorted((CONFIG.parents[1] / "clearclip" / "miniature" / "benchmark" / "images" / "val").glob("*.png"))[:3]


@pytest.fixture
def cfg(tiny_name: str) -> Config:
    """The miniature's config with another small model."""
    overrides = {"model.model_name": tiny_name, "model.clip_type": None, "model.vit_type": None, "model.device": "cpu"}
    return load_config(CONFIG, overrides)


def test_init_model_and_inference(cfg, tiny_name, tmp_path):
    model = init_model(cfg, None, device="cpu")
    wanted = ClearCLIP.from_pretrained(
        tiny_name, device="cpu", slide_crop=64, slide_stride=32, short_side=None
    ).segment(list(SCENES), Path(cfg.model.name_path).read_text().splitlines())
    one = inference_model(model, str(SCENES[0]))
    several = inference_model(model, [str(path) for path in SCENES])
    array = inference_model(model, np.asarray(Image.open(SCENES[0]).convert("RGB"))[:, :, ::-1])
    for result, expected in zip([one, array, *several], [wanted[0], wanted[0], *wanted], strict=True):
        np.testing.assert_array_equal(result.pred_sem_seg.data[0].numpy(), expected.labels)
    shown = show_result_pyplot(model, str(SCENES[0]), one, show=False, draw_gt=False, out_file=str(tmp_path / "a.png"))
    assert shown.shape == (128, 128, 3)
    assert (tmp_path / "a.png").is_file()


def test_init_model_does_not_take_random_weights(tmp_path):
    """It sets ``pretrained`` to None in every config: the model's own weights, not random ones."""
    cfg = load_config(CONFIG, {"model.device": "cpu"})
    model = init_model(cfg, None, device="cpu")
    assert model.cfg.model.pretrained is None
    own = ClearCLIP.from_pretrained("miniature", device="cpu").image_encoder.visual.proj
    assert torch.equal(model.model.image_encoder.visual.proj, own)


def test_inferencer(cfg, tmp_path):
    inferencer = MMSegInferencer(model=cfg, device="cpu")
    assert len(inferencer.model.dataset_meta["classes"]) == len(inferencer.model.dataset_meta["palette"]) == 14
    out = inferencer([str(path) for path in SCENES], out_dir=str(tmp_path), return_vis=True)
    assert len(out["predictions"]) == len(list((tmp_path / "vis").iterdir())) == 3
    assert out["predictions"][0].shape == (128, 128)


def test_runner_metric_and_visualiser(cfg, tmp_path):
    """MMSegmentation's own loop, IoUMetric and visualisation hook."""
    cfg.model.keep_logits = True
    cfg.test_dataloader.dataset.indices = 3
    cfg.test_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
    cfg.default_hooks.visualization = dict(type="SegVisualizationHook", draw=True, interval=1)
    backend = dict(type="LocalVisBackend", save_dir=str(tmp_path / "shown"))
    cfg.visualizer = dict(type="SegLocalVisualizer", name="test_tools", vis_backends=[backend])
    cfg.work_dir = str(tmp_path)
    assert set(Runner.from_cfg(cfg).test()) == {"aAcc", "mIoU", "mAcc"}
    assert len(list((tmp_path / "shown").rglob("*.png"))) == 3


def test_what_a_config_says_is_done(cfg, tmp_path, capsys):
    """Another metric runs beside ours and agrees with it; sizes of batches are the config's."""
    cfg.test_evaluator = [dict(type="IoUMetric", iou_metrics=["mIoU"], prefix="theirs")]
    cfg.test_dataloader.update(batch_size=3, num_workers=1)
    dataset = CheckedDataset(cfg.test_dataloader.dataset, limit=3)
    loader = build_loader(cfg, dataset)
    assert (loader.batch_size, loader.num_workers) == (3, 1)
    loader = build_loader(cfg, dataset, 2, 0, torch.device("cuda"))
    assert (loader.batch_size, loader.num_workers, loader.pin_memory) == (2, 0, True)
    (found,) = evaluate(cfg, tmp_path, limit=3)
    printed = capsys.readouterr().out
    assert f"theirs/mIoU {found.scores.summary['mIoU']:.2f}".rstrip("0") in printed


def test_workers_are_shared_by_the_processes_of_a_host(cfg, monkeypatch):
    monkeypatch.setattr("clearclip.evaluation.processes.available_cpus", lambda: 16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    dataset = CheckedDataset(cfg.test_dataloader.dataset)
    assert build_loader(cfg, dataset, device=torch.device("cuda")).num_workers == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model.pretrained=/a path/with spaces.pt", "/a path/with spaces.pt"),
        ("model.prob_thd=1e-1", 0.1),
        ("model.cached=false", False),
        ("model.pretrained=None", None),
        ("model.class_names=[sky,tree]", ["sky", "tree"]),
        ("model.class_names=['a tree', 'sky']", ["a tree", "sky"]),
        ("model.name_path=a(b", "a(b"),
    ],
)
def test_values_of_options(text, value):
    parser = CommandParser()
    parser.add_argument("--cfg-options", nargs="+", action=KeyValues, default={})
    (got,) = parser.parse_args(["--cfg-options", text]).cfg_options.values()
    assert got == value


def test_build_inside_inference_mode(tiny_name):
    with torch.inference_mode():
        segmentor = MODELS.build(
            dict(type="ClearCLIPSegmentation", model_name=tiny_name, class_names=WORDS, device="cpu", slide_crop=0)
        )
        inside = segmentor.predict(torch.ones(1, 3, 48, 72))[0].pred_sem_seg.data
    assert not any(parameter.is_inference() for parameter in segmentor.parameters())  # or it could not be moved
    assert torch.equal(segmentor.predict(torch.ones(1, 3, 48, 72))[0].pred_sem_seg.data, inside)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(clip_type="Miniature", vit_type="ViT-Z/3"), "ViT-Z/3"),
        (dict(clip_type="Miniature", vit_type="ViT-B/16"), "Miniature has no vit_type 'ViT-B/16'; choose Miniature/8"),
        (dict(slide_corp=64), "did you mean slide_crop"),
        (dict(model_type="BestCLIP"), "did you mean SCLIP"),
        (dict(method=dict(type="GEM", tau=3)), "GEM has no option 'tau'"),
        (dict(name_path="x", class_names=["a"]), "not both"),
        (dict(class_names=None), "name_path"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(UserError, match=words):
        MODELS.build(dict(type="ClearCLIPSegmentation", **{"class_names": WORDS, **options}))


def test_two_segmentors_on_one_model(tiny_name):
    """Each computes by its own settings, whichever was made last."""
    options = dict(type="ClearCLIPSegmentation", class_names=WORDS, model_name=tiny_name, device="cpu")
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    small, large = dict(slide_crop=48, slide_stride=24), dict(slide_crop=0, prob_thd=0.9, post="pamr")
    alone = [MODELS.build({**options, **own}).predict(image)[0].pred_sem_seg.data for own in (small, large)]
    model = ClearCLIP.from_pretrained(tiny_name, device="cpu")
    both = [MODELS.build({**options, **own, "model": model}) for own in (small, large)]
    for segmentor, wanted in zip(both, alone, strict=True):
        assert torch.equal(segmentor.predict(image)[0].pred_sem_seg.data, wanted)
    assert not torch.equal(*alone) and model.settings.slide_crop == 448


def test_padding_and_flips_are_undone(tiny_name):
    """Padding as if it had not been; a flip as MMSegmentation undoes it."""
    options = dict(model_name=tiny_name, class_names=WORDS, device="cpu", slide_crop=48, slide_stride=24)
    segmentor = MODELS.build(dict(type="ClearCLIPSegmentation", keep_logits=True, **options))
    image = torch.randn(1, 3, 72, 90, generator=torch.Generator().manual_seed(0))

    def predict(image, **meta):
        return segmentor.predict(image, [SegDataSample(metainfo=dict(ori_shape=(100, 120), **meta))])[0]

    plain = predict(image)
    padded = torch.nn.functional.pad(image, (3, 5, 2, 0), value=9)
    for name in ("padding_size", "img_padding_size"):
        assert torch.equal(predict(padded, **{name: (3, 5, 2, 0)}).pred_sem_seg.data, plain.pred_sem_seg.data)
    for direction, axes in (("horizontal", (-1,)), ("vertical", (-2,)), ("diagonal", (-2, -1))):
        flipped = predict(image.flip(axes))
        found = predict(image.flip(axes), flip=True, flip_direction=direction)
        assert torch.equal(found.pred_sem_seg.data, flipped.pred_sem_seg.data.flip(axes))
        assert torch.equal(found.seg_logits.data, flipped.seg_logits.data.flip(axes))


def test_test_time_augmentation(cfg, tmp_path):
    """MMSegmentation's own, with the pipeline of its configs."""
    versions = [
        [dict(type="Resize", scale_factor=factor, keep_ratio=True) for factor in (1.0, 1.25)],
        [dict(type="RandomFlip", prob=prob, direction="horizontal") for prob in (0.0, 1.0)],
        [dict(type="LoadAnnotations")],
        [dict(type="PackSegInputs")],
    ]
    cfg.model.keep_logits = True
    cfg.test_dataloader.dataset.update(
        indices=2, pipeline=[dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=versions)]
    )
    cfg.model = dict(type="SegTTAModel", module=cfg.model)
    cfg.test_evaluator = dict(type="IoUMetric")
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    assert set(runner.test()) == {"aAcc", "mIoU", "mAcc"}
    batch = next(iter(runner.test_dataloader))
    merged = runner.model.test_step(batch)[0].pred_sem_seg.data
    singles = [runner.model.module.test_step({name: values[k] for name, values in batch.items()})[0] for k in range(4)]
    wanted = sum(one.seg_logits.data.softmax(0) for one in singles).argmax(0)
    assert torch.equal(merged[0], wanted)
    assert not torch.equal(singles[0].pred_sem_seg.data, singles[1].pred_sem_seg.data)
