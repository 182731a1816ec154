"""Evaluations from the command line to the recorded row, against mIoU computed independently with NumPy."""

from __future__ import annotations

import functools
import io
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import die, environment, rows_of
from layouts import LAYOUTS, make_layout
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from clearclip.commands.command_line import run_command
from clearclip.commands.eval import eval_command as evaluate
from clearclip.evaluation import ClearCLIPSegmentation, ConfusionMetric
from clearclip.evaluation.config import load_config
from clearclip.evaluation.confusion import confusion_counts
from clearclip.evaluation.run import evaluate as evaluate_config
from clearclip.evaluation.scores import Scores
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> int:
    return evaluate(arguments)


def config(name: str) -> str:
    return str(ROOT / "config" / f"cfg_{name}.py")


def quick(name: str) -> list[str]:
    return [
        "--device",
        "cpu",
        "--cfg-options",
        f"model.model_name={name}",
        "model.clip_type=None",
        "model.vit_type=None",
    ]


def mean_iou(truths: list[np.ndarray], predictions: list[np.ndarray], classes: int) -> float:
    """mIoU in percent by its definition: pixel sets of each class over the whole dataset."""
    ious = []
    for label in range(classes):
        intersection = union = 0
        for truth, prediction in zip(truths, predictions, strict=True):
            counted = truth != 255
            a, b = (truth == label) & counted, (prediction == label) & counted
            intersection += int((a & b).sum())
            union += int((a | b).sum())
        if union:
            ious.append(intersection / union)
    return 100 * float(np.mean(ious))


def predict(name: str, quick_name: str, images: list[Path]) -> list[np.ndarray]:
    """Labels of a config's segmentor for images that are read, resized and normalised here."""
    cfg = load_config(config(name), {"model.model_name": quick_name, "model.clip_type": None, "model.vit_type": None})
    options = cfg.model.to_dict()
    options.pop("type")
    segmentor = ClearCLIPSegmentation(**options, device="cpu")
    out = []
    for path in images:
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        scale = min(2048 / max(height, width), 448 / min(height, width))
        image = cv2.resize(image, (int(width * scale + 0.5), int(height * scale + 0.5)))
        image = (image[:, :, ::-1] - np.array([122.771, 116.746, 104.094])) / np.array([68.501, 66.632, 70.323])
        sample = SegDataSample(metainfo=dict(ori_shape=(height, width)))
        segmentor.predict(torch.from_numpy(image).permute(2, 0, 1)[None].float(), [sample])
        out.append(sample.pred_sem_seg.data[0].numpy())
    return out


@pytest.mark.parametrize("name", LAYOUTS)
def test_benchmark(name, tmp_path, quick_name):
    made = make_layout(name, tmp_path, images=2)
    results = tmp_path / "results.xlsx"
    arguments = ["--config", config(name), "--workdir", str(tmp_path / "work"), "--results", str(results)]
    assert main([*arguments, "--data-root", str(made["data_root"]), "--workers", "0", *quick(quick_name)]) == 0

    (row,) = rows_of(results)
    predictions = predict(name, quick_name, made["images"])
    assert row["mIoU"] == pytest.approx(mean_iou(made["labels"], predictions, made["num_classes"]), abs=1e-3)
    assert row["images"] == 2
    assert row["dataset"] == name
    assert len(row["iou"]) == made["num_classes"]
    assert results.is_file()


def test_thresholds_of_the_protocol():
    wanted = {"voc21": 0.5, "context60": 0.15, "coco_object": 0.4}
    for name in LAYOUTS:
        model = load_config(config(name)).model
        assert model.get("prob_thd", 0) == wanted.get(name, 0)
        assert (model.slide_crop, model.slide_stride) == ((224, 224) if name == "city_scapes" else (448, 224))
        assert (model.get("model_type"), model.get("ignore_residual")) == ("ClearCLIP", True)


def test_class_words_are_those_of_the_protocol():
    def words(name):
        return (ROOT / "config" / f"cls_{name}.txt").read_text().splitlines()

    assert words("voc21")[0] == "background"
    assert (words("voc21")[4], words("voc21")[11]) == ("ship", "table")
    assert words("voc20") == words("voc21")[1:]
    assert "trafficlight" in words("city_scapes")
    assert "chestofdrawers" in words("ade20k")
    assert not any(" " in word for word in words("ade20k") + words("city_scapes") + words("coco_stuff164k"))
    assert "traffic light" in words("coco_object")
    counts = [len(words(name)) for name in sorted(LAYOUTS)]
    assert dict(zip(sorted(LAYOUTS), counts, strict=True)) == {
        "ade20k": 150,
        "city_scapes": 19,
        "coco_object": 81,
        "coco_stuff164k": 171,
        "context59": 59,
        "context60": 60,
        "voc20": 20,
        "voc21": 21,
    }


def test_scores_by_hand():
    scores = Scores(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(scores.iou[:2], [100 * 3 / 6, 100 * 4 / 7])
    assert np.isnan(scores.iou[2])
    assert scores.summary["aAcc"] == pytest.approx(70)
    assert scores.summary["mIoU"] == pytest.approx((50 + 400 / 7) / 2)
    assert scores.summary["mAcc"] == pytest.approx((75 + 400 / 6) / 2)


def test_scores_are_mmsegmentations():
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(4):
        truth, prediction = rng.integers(0, 5, (2, 30, 40))
        truth[rng.random((30, 40)) < 0.1] = 255
        samples.append((truth, prediction))
    theirs = IoUMetric(iou_metrics=["mIoU"])
    theirs.dataset_meta = {"classes": list("abcde")}
    theirs.process(
        {},
        [
            {"pred_sem_seg": {"data": torch.tensor(p)[None]}, "gt_sem_seg": {"data": torch.tensor(t)[None]}}
            for t, p in samples
        ],
    )
    total = sum(confusion_counts(torch.tensor(t), torch.tensor(p), 5) for t, p in samples).numpy().reshape(5, 5)
    wanted = theirs.compute_metrics(theirs.results)
    for name, value in Scores(total).summary.items():
        assert value == pytest.approx(wanted[name], abs=0.006)


def test_labels_beyond_the_classes_are_refused():
    metric = ConfusionMetric()
    metric.dataset_meta = {"classes": ["a", "b"]}
    sample = {
        "pred_sem_seg": {"data": torch.full((1, 2, 2), 2)},
        "gt_sem_seg": {"data": torch.zeros(1, 2, 2, dtype=torch.long)},
        "img_path": "x",
    }
    with pytest.raises(UserError, match="2 classes"):
        metric.process({}, [sample])


def run(arguments: list[str], gpus: int, **variables: str) -> subprocess.CompletedProcess:
    """Several processes, as a person starts them."""
    variables |= {"PYTHON": sys.executable, "GPUS": str(gpus)}
    command = ["bash", "dist_test.sh", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True)


def test_processes_give_the_identical_confusion_matrix(tmp_path, quick_name):
    """1 and 3 processes (2 after a kill, below), three methods in one pass, 7 images, which 3 does not divide."""
    rows = []
    for gpus in (1, 3):
        results = tmp_path / f"{gpus}.xlsx"
        arguments = [config("miniature"), "--limit", "7", "--work-dir", str(tmp_path / f"work{gpus}")]
        arguments += ["--methods", "CLIP", "SCLIP + ClearCLIP", "ClearCLIP"]
        arguments += ["--results", str(results), "--workers", "0", *quick(quick_name)]
        if gpus == 1:
            assert main(["--config", *arguments]) == 0
        else:
            done = run(arguments, gpus)
            assert done.returncode == 0, done.stderr
        found = rows_of(results)
        rows.append([(row["method"], row["images"], row["mIoU"], row["iou"]) for row in found])
        assert {row["images"] for row in found} == {7}
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]


def test_killed_and_resumed(tmp_path, quick_name):
    """SIGKILL after random images (more with CLEARCLIP_KILLS), the last resume with another number of processes."""
    kills = int(os.environ.get("CLEARCLIP_KILLS", "2"))
    rng = np.random.default_rng(0)
    work, images = tmp_path / "work", 24
    common = ["--limit", str(images), "--batch-size", "1", "--workers", "0", "--methods", "CLIP", "ClearCLIP"]
    whole = ["--work-dir", str(tmp_path / "w"), "--results", str(tmp_path / "whole.xlsx")]
    assert main(["--config", config("miniature"), *common, *whole, *quick(quick_name)]) == 0

    arguments = [config("miniature"), *common, "--work-dir", str(work), "--results", str(tmp_path / "killed.xlsx")]
    for number in range(kills):
        resume = ["--resume"] if number else []
        command = ["eval.py", "--config", *arguments, *resume, *quick(quick_name)]
        dies = die(command, at=int(rng.integers(1, images // kills)))
        assert dies.returncode == -signal.SIGKILL, dies.stderr
        # A kill in the middle of a line leaves a torn one.
        torn = next((work / "journal").rglob("rank*.jsonl"))
        torn.write_text(torn.read_text() + '{"image": "torn')
    assert not (tmp_path / "killed.xlsx").exists()
    resumed = run([*arguments, "--resume", *quick(quick_name)], gpus=2)
    assert resumed.returncode == 0, resumed.stderr
    rows, wanted = rows_of(tmp_path / "killed.xlsx"), rows_of(tmp_path / "whole.xlsx")
    assert [row["iou"] for row in rows] == [row["iou"] for row in wanted]
    assert [row["images"] for row in rows] == [images, images]

    with pytest.raises(UserError, match=r"logit_scale was 50, is 40"):
        main(["--config", *arguments, "--resume", *quick(quick_name), "model.logit_scale=40"])


def test_a_dead_process_ends_the_run(tmp_path, quick_name):
    """SIGKILL of one of two processes: the run ends with its name and records nothing."""
    imports = 'custom_imports = dict(imports=["clearclip.evaluation", "sudden_death"])'
    (tmp_path / "cfg_dies.py").write_text(f"_base_ = {config('miniature')!r}\n{imports}\n")
    options = ["--workers", "0", "--work-dir", str(tmp_path / "work"), "--results", str(tmp_path / "results.xlsx")]
    done = run([str(tmp_path / "cfg_dies.py"), *options, *quick(quick_name)], 2, DIE_RANK="1", DIE_AT="2")
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results.xlsx").exists()


def test_bad_images_stop_or_are_skipped(tmp_path, quick_name, capfd):
    made = make_layout("voc21", tmp_path, images=8)
    whole = made["images"][6].read_bytes()
    made["images"][6].write_bytes(whole[: len(whole) // 2])
    arguments = ["--config", config("voc21"), "--workdir", str(tmp_path / "w"), "--results", str(tmp_path / "r.xlsx")]
    arguments += ["--data-root", str(made["data_root"]), "--workers", "0", *quick(quick_name)]
    with pytest.raises(UserError, match=f"{made['stems'][6]}.*skip"):
        main(arguments)
    assert capfd.readouterr().err.endswith("\n")  # the error has a line of its own below the progress bar
    assert not (tmp_path / "r.xlsx").exists()
    assert main([*arguments[:4], "--on-error", "skip", *arguments[4:]]) == 0
    (row,) = rows_of(tmp_path / "r.xlsx")
    assert (row["images"], row["skipped"]) == (7, 1)
    keep = [0, 1, 2, 3, 4, 5, 7]
    predictions = predict("voc21", quick_name, [made["images"][index] for index in keep])
    assert row["mIoU"] == pytest.approx(mean_iou([made["labels"][i] for i in keep], predictions, 21), abs=1e-3)
    # Repaired, it is other data: refused, or computed again.
    made["images"][6].write_bytes(whole)
    with pytest.raises(UserError, match=r"--resume: the settings differ \(dataset\.images was"):
        main([*arguments[:4], "--resume", *arguments[4:]])
    assert main([*arguments[:4], "--resume", "auto", *arguments[4:]]) == 0
    row = rows_of(tmp_path / "r.xlsx")[-1]
    assert (row["images"], row["skipped"]) == (8, 0)


def test_a_bad_image_that_is_opened_first(tmp_path, quick_name):
    """Whether an image is among those that are looked at before the run changes nothing."""
    made = make_layout("voc21", tmp_path, images=3)
    made["images"][0].write_bytes(b"broken")
    arguments = ["--config", config("voc21"), "--workdir", str(tmp_path / "w"), "--results", str(tmp_path / "r.xlsx")]
    arguments += ["--data-root", str(made["data_root"]), "--workers", "0", *quick(quick_name)]
    with pytest.raises(UserError, match=f"{made['stems'][0]}.*--on-error skip"):
        main(arguments)
    assert main([*arguments[:4], "--on-error", "skip", *arguments[4:]]) == 0
    (row,) = rows_of(tmp_path / "r.xlsx")
    assert (row["images"], row["skipped"]) == (2, 1)


def test_nan_is_an_error(tmp_path, tiny_folder, tiny_name):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((tiny_folder / "open_clip_config.json").read_text())
    state = torch.load(tiny_folder / "open_clip_pytorch_model.bin", weights_only=True)
    state["visual.proj"] = state["visual.proj"].clone()
    state["visual.proj"][3, 4] = float("nan")
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match=r"NaN.*visual\.proj"):
        ClearCLIPSegmentation(model_name=f"local-dir:{folder}", class_names=["a", "b"], device="cpu")

    segmentor = ClearCLIPSegmentation(model_name=tiny_name, class_names=["a", "b"], device="cpu")
    image = torch.zeros(1, 3, 64, 64)
    image[0, 0, 5, 5] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        segmentor.predict(image)


def test_settings_tell_results_apart(tmp_path, quick_name):
    """Everything that changes a result is in its row."""
    method = dict(type="ClearCLIP", attention="kk", alpha=0.5, residual=True)
    options = [*(f"model.method.{name}={value}" for name, value in method.items()), "model.prob_thd=0.1"]
    arguments = ["--config", config("miniature"), "--limit", "2", "--workdir", str(tmp_path / "w"), "--workers", "0"]
    own = tmp_path / "w" / "journal" / "mine.txt"  # of a user who has such a folder, too
    own.parent.mkdir(parents=True)
    own.touch()
    for _ in range(2):
        assert main([*arguments, "--results", str(tmp_path / "r.xlsx"), *quick(quick_name), *options]) == 0
    assert own.exists()
    row, _ = rows_of(tmp_path / "r.xlsx")
    facts, label = row["facts"], "kk, residual, no FFN, alpha 0.5"
    wanted = dict(label=label, type="LastBlock", attention="kk", residual=True, ffn=False, alpha=0.5)
    assert facts["method"] == wanted
    assert (facts["model"]["prob_thd"], facts["model"]["slide_crop"], facts["environment"]["precision"]) == (
        0.1,
        64,
        "fp32",
    )
    assert facts["dataset"]["count"] == 2
    assert row["method"] == "kk, residual, no FFN, alpha 0.5"


@pytest.mark.parametrize("fault", [BrokenPipeError, UnicodeEncodeError("ascii", "–", 0, 1, "no"), OSError(28, "full")])
def test_what_cannot_be_printed_is_recorded(fault, tmp_path, quick_name, monkeypatch):
    """A closed pipe, a console of few letters or a full disk behind stdout: the same exit code and the same row."""

    class Broken(io.StringIO):
        def write(self, text):
            raise fault

    arguments = ["--config", config("miniature"), "--limit", "1", "--workdir", str(tmp_path / "w"), "--workers", "0"]
    arguments += ["--results", str(tmp_path / "r.xlsx"), *quick(quick_name)]
    monkeypatch.setattr(sys, "stdout", Broken())
    assert run_command(lambda: main(arguments)) == 0
    assert len(rows_of(tmp_path / "r.xlsx")) == 1
    assert (tmp_path / "r.xlsx").is_file()


def test_the_tour(tmp_path, monkeypatch, capsys):
    """What ``make demo`` runs, on a few images."""
    monkeypatch.chdir(tmp_path)
    short = functools.partial(evaluate_config, limit=5, workers=0)
    monkeypatch.setattr("clearclip.evaluation.run.evaluate", short)
    monkeypatch.setattr(sys, "argv", ["tools/tour.py"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "tools" / "tour.py"), run_name="__main__")
    assert not stop.value.code
    assert re.search(r"CLIP +mIoU +\d.*\nClearCLIP +mIoU +\d.*\n5 images", capsys.readouterr().out)
    assert [row["method"] for row in rows_of("results.xlsx")] == ["CLIP", "ClearCLIP"]
    assert Path("outputs/tour/tour.png").is_file()


def test_a_machine_without_a_compiler(tmp_path, monkeypatch, quick_name, capfd):
    """MMEngine's runner looks for gcc, which prints that there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["--config", config("miniature"), "--limit", "1", "--workdir", str(tmp_path / "w"), "--workers", "0"]
    assert main([*arguments, "--results", str(tmp_path / "r.xlsx"), *quick(quick_name)]) == 0
    assert "not found" not in capfd.readouterr().err
