"""Images and masks that another program writes while they are evaluated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from test_run_facts import change_pixel, lay_out, run

from clearclip import UserError
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import load_config
from clearclip.evaluation.data_watch import DataWatch
from clearclip.evaluation.run_facts import dataset_facts


@pytest.fixture
def folder(tmp_path, quick_folder, monkeypatch) -> Path:
    lay_out(tmp_path, quick_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(mask: Path) -> None:
    os.utime(mask, (1, 1))


def save_again(mask: Path) -> None:
    mask.write_bytes(mask.read_bytes())


def change_and_hide(mask: Path) -> None:
    """Other bytes under the former size and time."""
    state, content = mask.stat(), bytearray(mask.read_bytes())
    content[-20] ^= 1
    mask.write_bytes(content)
    os.utime(mask, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize(
    ("write", "is_other"),
    [(touch, False), (save_again, False), (change_pixel, True), (change_and_hide, True), (Path.unlink, True)],
)
@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("before_the_facts", [True, False])
def test_what_counts_is_what_the_files_hold(write, is_other, kind, before_the_facts, folder):
    """Whether they are written during the run or while it is prepared."""
    dataset = CheckedDataset(load_config("config.py").test_dataloader.dataset)
    facts = {"dataset": dataset_facts(dataset)}
    watch = DataWatch(dataset)
    path = folder / "data" / kind / "0047.png"
    if before_the_facts:
        # Written again as it was, after it was hashed: the watch began before either.
        content = path.read_bytes()
        write(path)
        path.write_bytes(content)
        watch.check(facts)
        return
    write(path)
    if is_other:
        with pytest.raises(UserError, match=rf"{kind}.0047.png was changed by another program during the run"):
            watch.check(facts)
    else:
        watch.check(facts)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_run_whose_data_are_written_records_nothing(kind, folder):
    class OtherProgram(Hook):
        """Writes a file after the first batch; the last image has been read by then, or not."""

        def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if batch_idx == 0:
                change_pixel(folder / "data" / kind / "0022.png", 5)

    with pytest.raises(UserError, match=r"0022.png was changed by another program .* nothing was recorded"):
        run(folder, hooks=[OtherProgram()])
