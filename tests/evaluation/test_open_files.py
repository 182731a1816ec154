"""Any limit of open files is enough for reading processes."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import torch
import torch.multiprocessing
from conftest import environment
from torch.utils.data import DataLoader

from clearclip.evaluation import open_files
from clearclip.evaluation.open_files import open_files_needed, sharing_that_fits

#: Reads 240 tensors, 40 in a batch, through four processes, with 256 open files at most.
PROGRAM = """
import resource
import torch
from torch.utils.data import DataLoader
from clearclip.evaluation.open_files import sharing_that_fits
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
class Many(torch.utils.data.Dataset):
    def __len__(self):
        return 240
    def __getitem__(self, index):
        return torch.full((4,), index), torch.zeros(4)
loader = DataLoader(Many(), batch_size=40, num_workers=4, collate_fn=list)
with sharing_that_fits(loader):
    batches = list(loader)
print(int(sum(tensor.sum() for batch in batches for tensor, _ in batch)))
"""


def test_256_open_files():
    """All batches are kept, as a slow GPU would: 480 tensors at once."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4 * sum(range(240))


@pytest.mark.parametrize(("allowed", "strategy"), [(100, "file_system"), (100_000, None), (None, None)])
def test_the_usual_way_where_it_fits(allowed, strategy, monkeypatch):
    usual = torch.multiprocessing.get_sharing_strategy()
    monkeypatch.setattr(open_files, "open_files_allowed", lambda: allowed)
    loader = DataLoader([1, 2, 3], batch_size=2, num_workers=2)
    assert open_files_needed(loader) > 100
    with sharing_that_fits(loader):
        assert torch.multiprocessing.get_sharing_strategy() == (strategy or usual)
    assert torch.multiprocessing.get_sharing_strategy() == usual
    assert (loader.worker_init_fn is not None) == (strategy is not None)


def test_the_limit_is_the_system_s():
    assert open_files.open_files_allowed() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
