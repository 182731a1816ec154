"""Whatever is counted is resumed or refused: metrics of the config beside ours, by NumPy and MMSegmentation."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_model import config, ours
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS

from clearclip import ClearCLIP, UserError
from clearclip.evaluation import ConfusionMetric, prepared_run
from clearclip.evaluation.config import load_config
from clearclip.evaluation.evaluator import decode_results, encode_results
from clearclip.evaluation.run import evaluate

#: The fixtures ``clip``, a model that labels pixels by their colour, and ``data``.
pytest_plugins = ["colour_model"]

IOU = dict(type="IoUMetric", iou_metrics=["mIoU", "mDice", "mFscore"])


@METRICS.register_module()
class Tally(BaseMetric):
    """Counts images without noting anything in its results."""

    default_prefix = "tally"

    def __init__(self):
        super().__init__()
        self.images = 0

    def process(self, data_batch, data_samples):
        self.images += len(data_samples)

    def compute_metrics(self, results):
        return {"images": self.images}


@METRICS.register_module()
class Names(BaseMetric):
    """Remembers the images, as paths of files."""

    def process(self, data_batch, data_samples):
        self.results += [sample["img_path"] for sample in data_samples]

    def compute_metrics(self, results):
        return {"names": len(set(results))}


@METRICS.register_module()
class OtherShapes(BaseMetric):
    """Results of several kinds: two for each image."""

    def process(self, data_batch, data_samples):
        assert len(data_batch["inputs"]) == len(data_samples)
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"].float()
            self.results += [{"mean": labels.mean(), "name": "no file"}, (float(labels.max()), [1, True, None])]

    def compute_metrics(self, results):
        assert len(results) % 2 == 0
        return {"mean": float(torch.stack([result["mean"] for result in results[::2]]).double().mean())}


def stopped_after(count: int) -> prepared_run.Hook:
    """A hook that ends an evaluation after so many images, as Ctrl-C would."""

    class Stop(prepared_run.Hook):
        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if batch_idx + 1 == count:
                raise KeyboardInterrupt

    return Stop()


def interrupted(cfg, folder: Path, model, monkeypatch, count: int = 2, **options) -> None:
    # The hook must not change the fingerprint, so it stands where the progress bar does.
    with monkeypatch.context() as patch:
        hook = stopped_after(count)
        hook.close = lambda: None
        patch.setattr(prepared_run, "ProgressHook", lambda: hook)
        with pytest.raises(KeyboardInterrupt):
            evaluate(cfg, folder, model=model, **options)


def scores_of(output: str) -> dict[str, float]:
    """The other metrics' scores as they are printed."""
    (line,) = [line for line in output.splitlines() if line.startswith("other metrics")]
    return {name: float(value) for name, value in (one.split() for one in line.split(": ")[1].split(", "))}


def by_numpy(confusion: np.ndarray) -> dict[str, float]:
    """MMSegmentation's names, from the confusion matrix, in percent."""
    hit, predicted, true = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    precision, recall = hit / predicted, hit / true
    scores = {
        "aAcc": [hit.sum() / true.sum()],
        "mIoU": hit / (predicted + true - hit),
        "mAcc": recall,
        "mDice": 2 * hit / (predicted + true),
        "mPrecision": precision,
        "mRecall": recall,
        "mFscore": 2 * precision * recall / (precision + recall),
    }
    return {name: 100 * float(np.mean(values)) for name, values in scores.items()}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_mmsegmentations_metric_is_resumed(batch_size, data, clip, tmp_path, monkeypatch, capsys):
    """After 2 (or 4) of 5 images, and again when all are finished."""
    cfg = config(data, loader=dict(batch_size=batch_size, num_workers=0))
    cfg.test_evaluator = [dict(type="ConfusionMetric"), IOU, dict(type="OtherShapes")]
    (whole,) = evaluate(cfg, tmp_path / "whole", model=clip)
    wanted = scores_of(capsys.readouterr().out)
    for name, value in by_numpy(whole.scores.confusion).items():
        assert wanted[name] == pytest.approx(value, abs=0.0051)
    interrupted(cfg, tmp_path / "parts", clip, monkeypatch)
    for _ in range(2):
        (resumed,) = evaluate(cfg, tmp_path / "parts", model=clip, resume="yes")
        output = capsys.readouterr().out
        assert "resuming" in output and scores_of(output) == wanted
        np.testing.assert_array_equal(resumed.scores.confusion, whole.scores.confusion)


def test_a_run_of_40_images_that_was_killed_after_21(tmp_path, monkeypatch, capsys):
    """The scores are those of a run of all 40, as they were measured without an interruption."""
    model = ClearCLIP.from_pretrained("miniature", device="cpu")
    cfg = load_config("cfg_miniature.py")
    cfg.test_evaluator = [dict(type="ConfusionMetric"), IOU]
    options = dict(limit=40, batch_size=1, workers=0)
    interrupted(cfg, tmp_path, model, monkeypatch, count=21, **options)
    # A process that is killed leaves half a line behind.
    (journal,) = tmp_path.glob("journal/*/rank0-*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="1 damaged lines; their images are computed again"):
        (resumed,) = evaluate(cfg, tmp_path, model=model, resume="yes", **options)
    output = capsys.readouterr().out
    assert "resuming: 20 images are finished" in output
    scores = scores_of(output)
    whole_run = {"mIoU": 63.24, "mDice": 75.78, "mPrecision": 76.06, "mRecall": 77.60, "mFscore": 75.78}
    assert {name: round(scores[name], 2) for name in whole_run} == whole_run
    for name, value in by_numpy(resumed.scores.confusion).items():
        assert scores[name] == pytest.approx(value, abs=0.0051)


@pytest.mark.parametrize("name", ["Tally", "Names"])
def test_what_cannot_be_stored_is_refused_on_resumption_only(name, data, clip, tmp_path, monkeypatch, capsys):
    """A metric that counts beside its results, and one whose results name files."""
    cfg = config(data)
    cfg.test_evaluator = [dict(type=name)]
    evaluate(cfg, tmp_path / "whole", model=clip)
    assert set(scores_of(capsys.readouterr().out).values()) == {5.0}
    interrupted(cfg, tmp_path / "parts", clip, monkeypatch)
    with pytest.raises(UserError, match=rf"what {name} counted .* could not be stored; start again without --resume"):
        evaluate(cfg, tmp_path / "parts", model=clip, resume="yes")
    evaluate(cfg, tmp_path / "parts", model=clip)
    assert set(scores_of(capsys.readouterr().out).values()) == {5.0}


def test_skipped_images_reach_no_other_metric(data, clip, tmp_path, capsys):
    """MMSegmentation's would end with a KeyError: there is no prediction."""
    root = Path(shutil.copytree(data, tmp_path / "copy"))
    (root / "images" / "2.png").write_bytes(b"\x89PNG")
    cfg = config(root)
    cfg.test_evaluator = [IOU]
    (found,) = evaluate(cfg, tmp_path / "work", model=clip, on_error="skip")
    assert found.images == 4
    scores = scores_of(capsys.readouterr().out)
    for name, value in by_numpy(found.scores.confusion).items():
        assert scores[name] == pytest.approx(value, abs=0.0051)


def test_two_metrics_of_one_name(data, clip, tmp_path):
    cfg = config(data)
    cfg.test_evaluator = [IOU, IOU]
    with pytest.raises(UserError, match=r"two metrics of test_evaluator have a score aAcc; .* a prefix"):
        evaluate(cfg, tmp_path, model=clip)


@pytest.mark.parametrize(
    "results",
    [
        [(torch.arange(3), torch.zeros(2, dtype=torch.float16))],
        [{"a": [1, 2.5, None, "text", True]}],
        [],
        [float("nan")],
    ],
)
def test_results_survive_as_text(results):
    again = decode_results(encode_results(results))
    assert repr(again) == repr(results)


class Opaque:
    """An object of somebody's own class."""


def test_results_that_are_not_stored(tmp_path):
    """Objects whose reading would execute code, and names of files, which may be gone when they are needed."""
    assert encode_results([Opaque()]) is None
    (tmp_path / "file").touch()
    assert encode_results([{"path": [str(tmp_path / "file")]}]) is None
    assert encode_results(["x" * 100_000]) is not None


def test_metrics_and_model_settings_that_would_be_ignored(data, clip, tmp_path):
    cfg = config(data)
    cfg.test_evaluator = [dict(type="IoUMetric", ignore_index=0)]
    with pytest.raises(UserError, match="IoUMetric ignores 0, the dataset 255; give both the same"):
        ours(cfg, tmp_path, clip)
    cfg = config(data)
    cfg.model.test_cfg = dict(mode="slide", crop_size=(64, 64), stride=(32, 32))
    with pytest.raises(UserError, match=r"test_cfg .* slide_crop"):
        ours(cfg, tmp_path, clip)


def test_other_metrics_run_beside_ours(data, clip, tmp_path, capsys):
    """MMSegmentation's, whose scores have the same names, and ours by any name, which is not computed twice."""
    cfg = config(data)
    cfg.test_evaluator = [
        dict(type="mmseg.IoUMetric", iou_metrics=["mIoU", "mDice"]),
        dict(type="mmseg.ConfusionMetric"),
        dict(type=ConfusionMetric, ignore_index=255),
    ]
    intersection, prediction, truth = ours(cfg, tmp_path, clip)
    (dice,) = re.findall(r"other metrics of the config: .*mDice ([\d.]+)", capsys.readouterr().out)
    assert float(dice) == pytest.approx(100 * np.mean(2 * intersection / (prediction + truth)), abs=0.006)
