"""``eval_all.py --force``: what is computed again, and the command that goes on after Ctrl-C."""

from __future__ import annotations

import datetime
import os
import shlex
import time
from argparse import Namespace
from pathlib import Path

import pytest
from conftest import rows_of
from recorded_runs import append_run

from clearclip import UserError
from clearclip.commands.eval_all import eval_all_command
from clearclip.commands.table_repetition import NO_REPETITION, repetition_of
from clearclip.evaluation import prepared_run
from clearclip.evaluation.journal import Journal, latest_start
from clearclip.utils.continuation import command_to_continue

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)


class InterruptedProgress(prepared_run.ProgressHook):
    """Ctrl-C after three images."""

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 2:
            raise KeyboardInterrupt


def test_the_command_that_is_named_goes_on(tmp_path, monkeypatch, capfd):
    """A result is repeated, Ctrl-C comes after 3 of 5 images, and 2 are computed by the command that it names."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--miniature", "--limit", "5", "--rows", "CLIP", "--cfg-options", "test_dataloader.batch_size=1"]
    assert eval_all_command(arguments) == 0
    (first,) = rows_of("results.xlsx")
    # Records know their second only: the repetition begins in another one.
    while datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds") <= first["time"]:
        time.sleep(0.01)
    with monkeypatch.context() as patch:
        patch.setattr(prepared_run, "ProgressHook", InterruptedProgress)
        with pytest.raises(KeyboardInterrupt) as interruption:
            eval_all_command([*arguments, "--force"])
    sentence = str(interruption.value)
    assert sentence.startswith("what is finished is kept: the same command with --force 20")
    assert command_to_continue() == "the same command with --resume", "eval.py's, as before"
    added = shlex.split(sentence.partition(" with ")[2].removesuffix(" goes on"))
    capfd.readouterr()
    assert eval_all_command([*arguments, *added]) == 0
    output = capfd.readouterr().out
    assert "resuming: 3 images are finished" in output and "1 done; 0 skipped" in output
    _, second = rows_of("results.xlsx")
    assert (second["iou"], second["images"]) == (first["iou"], 5)
    assert eval_all_command([*arguments, *added]) == 0
    assert "0 done; 1 skipped" in capfd.readouterr().out


def test_ctrl_c_before_the_first_image(tmp_path, monkeypatch):
    """While a model is loaded, which takes minutes for a large one."""

    def interrupt(_settings):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clearclip.commands.table_run.LoadedModel.load", interrupt)
    with pytest.raises(KeyboardInterrupt, match="what is finished is kept: the same command goes on"):
        eval_all_command(["--miniature", "--limit", "1", "--rows", "CLIP"])


def test_without_force_all_results_and_journals_count(tmp_path):
    append_run(tmp_path / "results.xlsx")
    assert repetition_of(Namespace(force=None)) == NO_REPETITION
    assert len(NO_REPETITION.records_that_count(tmp_path / "results.xlsx")) == 1
    assert NO_REPETITION.resume_option(tmp_path) == "auto"
    assert NO_REPETITION.command_to_continue == "the same command"


def test_a_new_repetition_counts_nothing(tmp_path):
    append_run(tmp_path / "results.xlsx")
    repetition = repetition_of(Namespace(force=""))
    assert repetition.records_that_count(tmp_path / "results.xlsx") == []
    assert repetition.resume_option(tmp_path) == "no"
    assert repetition.since.isoformat() in repetition.command_to_continue


@pytest.mark.parametrize(("moved_by", "count", "resume"), [(-1, 1, "auto"), (1, 0, "no")])
def test_what_is_newer_than_a_repetition_counts(tmp_path, moved_by, count, resume):
    record = append_run(tmp_path / "results.xlsx")
    since = record.moment + datetime.timedelta(seconds=moved_by)
    repetition = repetition_of(Namespace(force=since.isoformat()))
    assert len(repetition.records_that_count(tmp_path / "results.xlsx")) == count
    start_journal(tmp_path, record.moment)
    assert repetition.resume_option(tmp_path) == resume


def test_a_run_that_is_resumed_began_when_it_was_started(tmp_path):
    start_journal(tmp_path, NOON)
    Journal(tmp_path / "journal", {"a": 1}, 9, 1, "yes").close()
    assert latest_start(tmp_path / "journal") == NOON
    assert latest_start(tmp_path / "nothing") is None


def start_journal(work_dir: Path, moment: datetime.datetime) -> None:
    Journal(work_dir / "journal", {"a": 1}, 9, 1).close()
    (facts,) = work_dir.glob("journal/*/facts.json")
    os.utime(facts, (moment.timestamp(), moment.timestamp()))


def test_a_time_that_is_none():
    with pytest.raises(UserError, match=r"--force 'noon' is no time; .* 2026-01-31T12:00:00"):
        repetition_of(Namespace(force="noon"))
