"""Whole runs: by several processes, killed and resumed, and what their rows say."""

from __future__ import annotations

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from conftest import rows_of
from quick_runs import config, quick, run

from clearclip.commands.eval import eval_command
from clearclip.utils.errors import UserError


def test_processes_give_the_identical_confusion_matrix(tmp_path, quick_name):
    """1 and 3 processes (2 after a kill, below), three methods in one pass, 7 images, which 3 does not divide."""
    rows = []
    for gpus in (1, 3):
        results = tmp_path / f"{gpus}.xlsx"
        arguments = [config("miniature"), "--limit", "7", "--work-dir", str(tmp_path / f"work{gpus}")]
        arguments += ["--methods", "CLIP", "SCLIP + ClearCLIP", "ClearCLIP"]
        arguments += ["--results", str(results), "--workers", "0", *quick(quick_name)]
        if gpus == 1:
            assert eval_command(["--config", *arguments]) == 0
        else:
            done = run(arguments, gpus)
            assert done.returncode == 0, done.stderr
        found = rows_of(results)
        rows.append([(row["method"], row["images"], row["mIoU"], row["iou"]) for row in found])
        assert {row["images"] for row in found} == {7}
    assert len(rows[0]) == 3
    assert rows[0] == rows[1]


def _evaluate_until_death(arguments: list[str], at: int) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    os.environ["DIE_AT"] = str(at)
    import sudden_death  # noqa: F401  (in this process only)

    eval_command(arguments)


def killed_evaluation(arguments: list[str], at: int) -> int | None:
    """Run eval.py in a process that kills itself before its batch number ``at``, and give its exit code.

    The process is a fork, in which everything is imported already.
    """
    process = multiprocessing.get_context("fork").Process(target=_evaluate_until_death, args=(arguments, at))
    process.start()
    process.join()
    return process.exitcode


def test_killed_and_resumed(tmp_path, quick_name):
    """SIGKILL after random images (more with CLEARCLIP_KILLS), the last resume with another number of processes."""
    kills = int(os.environ.get("CLEARCLIP_KILLS", "2"))
    rng = np.random.default_rng(0)
    work, images = tmp_path / "work", 24
    common = ["--limit", str(images), "--batch-size", "1", "--workers", "0", "--methods", "CLIP", "ClearCLIP"]
    whole = ["--work-dir", str(tmp_path / "w"), "--results", str(tmp_path / "whole.xlsx")]
    assert eval_command(["--config", config("miniature"), *common, *whole, *quick(quick_name)]) == 0

    arguments = [config("miniature"), *common, "--work-dir", str(work), "--results", str(tmp_path / "killed.xlsx")]
    for number in range(kills):
        resume = ["--resume"] if number else []
        command = ["--config", *arguments, *resume, *quick(quick_name)]
        assert killed_evaluation(command, at=int(rng.integers(1, images // kills))) == -signal.SIGKILL
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
        eval_command(["--config", *arguments, "--resume", *quick(quick_name), "model.logit_scale=40"])


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


def test_settings_tell_results_apart(tmp_path, quick_name):
    """Everything that changes a result is in its row."""
    method = dict(type="ClearCLIP", attention="kk", alpha=0.5, residual=True)
    options = [*(f"model.method.{name}={value}" for name, value in method.items()), "model.prob_thd=0.1"]
    arguments = ["--config", config("miniature"), "--limit", "2", "--workdir", str(tmp_path / "w"), "--workers", "0"]
    own = tmp_path / "w" / "journal" / "mine.txt"  # of a user who has such a folder, too
    own.parent.mkdir(parents=True)
    own.touch()
    for _ in range(2):
        assert eval_command([*arguments, "--results", str(tmp_path / "r.xlsx"), *quick(quick_name), *options]) == 0
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
