"""Pictures of an evaluation: image, ground truth, prediction and errors side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine import dist

from clearclip.errors import UserError
from clearclip.files import check_folder
from clearclip.images import read_image
from clearclip.pictures import evaluation_picture, save_image


class PictureWriter:
    """Called with every predicted sample; writes a PNG for some of them.

    Args:
        folder: where they go.
        every: of every so many-th image.
        first: at most so many (per process).

    Raises:
        UserError: a number below 1, or a file in the folder's place.
    """

    def __init__(self, folder: Path, every: int = 1, first: int | None = None):
        if every < 1 or (first is not None and first < 1):
            raise UserError("--show-every and --show-first must be at least 1")
        check_folder("--show-dir", folder)
        self.folder = folder
        self.every = every
        self.first = first
        self.seen = 0
        self.written = 0

    def __call__(self, sample: Any, classes: list[str], palette: list[list[int]]) -> None:
        """Write the picture of a sample, if it is one of those wanted."""
        wanted = self.seen % self.every == 0 and (self.first is None or self.written < self.first)
        self.seen += 1
        if not wanted:
            return
        picture = evaluation_picture(
            read_image(sample.img_path),
            sample.gt_sem_seg.data.squeeze(0).cpu().numpy(),
            sample.pred_sem_seg.data.squeeze(0).cpu().numpy(),
            classes,
            palette,
        )
        rank = f"-{dist.get_rank()}" if dist.get_world_size() > 1 else ""
        save_image(picture, self.folder / f"{Path(sample.img_path).stem}{rank}.png")
        self.written += 1
