"""A journal is what it says: damaged lines are computed again, other runs and other people's files stay."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clearclip import UserError
from clearclip.evaluation.journal import Journal

FACTS = {"dataset": {"count": 9}, "model": {"prob_thd": 0.1}}


def opened(folder: Path, resume: str = "auto", facts: dict | None = None, methods: int = 2) -> Journal:
    return Journal(folder, facts or FACTS, 9, methods, resume)


def finished(folder: Path, resume: str = "auto", facts: dict | None = None) -> dict:
    """What a journal finds there; it is closed again."""
    journal = opened(folder, resume, facts)
    journal.close()
    return journal.finished


def counts(image: int) -> list:
    return [[[0, image], [7, 8]], [[image], [15]]]


def fill(folder: Path, images: range) -> Path:
    journal = opened(folder)
    for image in images:
        journal.add(image, counts(image))
    journal.close()
    return Path(journal._file.name)


def test_what_was_finished_is_found_again(tmp_path):
    fill(tmp_path, range(3))
    fill(tmp_path, range(3, 5))
    assert finished(tmp_path, "yes") == {image: counts(image) for image in range(5)}
    assert finished(tmp_path, "no") == {}
    assert finished(tmp_path) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-4],
        lambda line: line.replace(b"15", b"16"),
        lambda line: line.replace(b'"image":1', b'"image":2'),
        lambda line: b"\xff\xfe" + line,
        lambda line: b"{}",
        lambda line: b"00000000 {}",
        lambda line: b"[[[[" * 50,
        lambda line: b"\0" * 300,
    ],
)
def test_a_damaged_line_is_computed_again(tmp_path, damage):
    path = fill(tmp_path, range(3))
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage(lines[1])
    path.write_bytes(b"\n".join(lines))
    with pytest.warns(UserWarning, match="damaged"):
        assert finished(tmp_path) == {0: counts(0), 2: counts(2)}


def test_what_is_no_journal_is_left_alone(tmp_path):
    """A fifo and a folder with a journal's name, a file of somebody's own, and other runs' folders."""
    folder = fill(tmp_path, range(3)).parent
    os.mkfifo(folder / "rank0-00000000.jsonl")
    (folder / "rank0-11111111.jsonl").mkdir()
    (folder / "mine.txt").touch()
    other = fill_other(tmp_path)
    assert len(finished(tmp_path)) == 3
    assert finished(tmp_path, "no") == {}
    assert (folder / "mine.txt").exists() and (folder / "rank0-11111111.jsonl").is_dir()
    assert len(finished(tmp_path, facts=other)) == 1


def fill_other(folder: Path) -> dict:
    other = {**FACTS, "model": {"prob_thd": 0.2}}
    journal = opened(folder, facts=other)
    journal.add(0, counts(0))
    journal.close()
    return other


def test_nothing_to_resume_says_what_differs(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        opened(tmp_path, "yes")
    fill_other(tmp_path)
    with pytest.raises(UserError, match=r"model\.prob_thd was 0\.2, is 0\.1"):
        opened(tmp_path, "yes")
    (next(tmp_path.glob("*/facts.json"))).write_text(json.dumps([1]))
    with pytest.raises(UserError, match="nothing to resume"):
        opened(tmp_path, "yes")


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/.* cannot be used .*--workdir"):
        opened(tmp_path / "file")


@pytest.mark.parametrize("resume", ["no", "yes", "auto"])
def test_a_run_that_is_going_on_keeps_its_journal(tmp_path, resume):
    """The same command a second time is refused, and what the first one has written stays. Other runs start."""
    first = opened(tmp_path)
    first.add(0, counts(0))
    with pytest.raises(UserError, match=r"running already.*--workdir"):
        opened(tmp_path, resume)
    fill_other(tmp_path)
    first.add(1, counts(1))
    first.close()
    assert finished(tmp_path, "yes") == {0: counts(0), 1: counts(1)}


def test_a_lock_ends_with_its_process(tmp_path):
    """Whatever ended it: a file of the lock's name that is left behind locks nothing."""
    child = os.fork()
    if not child:
        opened(tmp_path).add(3, counts(3))
        os._exit(9)  # nothing is closed
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert finished(tmp_path, "yes") == {3: counts(3)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_journal_that_cannot_grow(tmp_path):
    """One line that names the file; what was finished before is found again."""
    journal = opened(tmp_path)
    journal.add(0, counts(0))
    journal._file.close()
    journal._file = open("/dev/full", "w")  # noqa: SIM115 (it stands for the journal's)
    with pytest.raises(UserError, match=r"cannot grow \(No space left on device\).*--resume"):
        journal.add(1, counts(1))
    journal.close()
    assert finished(tmp_path, "yes") == {0: counts(0)}


def test_what_other_metrics_counted(tmp_path):
    journal = opened(tmp_path)
    journal.add(2, counts(2), ["text", None])
    journal.close()
    again = opened(tmp_path, "yes")
    again.close()
    assert again.metric_results == {2: ["text", None]}
