"""What an analysis looks at: any images, or those of a benchmark, which have ground truth."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, center_crop, resize
from tqdm import tqdm

from clearclip import mmseg
from clearclip.data.check import quick_check
from clearclip.errors import UserError
from clearclip.images import read_image
from clearclip.methods import Method
from clearclip.mmseg.config import class_words, load_config, model_settings
from clearclip.mmseg.evaluate import evaluate
from clearclip.model import ClearCLIP
from clearclip.settings import ModelSettings
from clearclip.text import ClassWords

BATCH = 16  # images of the statistics
#: Options that say which model it is; those of another one must not mix with a config's.
NAMING = dict.fromkeys(("clip_type", "vit_type", "model_name", "pretrained", "quick_gelu"))


class Images:
    """Images, and which of them cannot be used: each is named once and skipped.

    Args:
        paths: image files.
        classes: what to look for; None where there are no words.
        palette: a colour for each class; None means this package's own.
    """

    def __init__(self, paths: Sequence[str | Path], classes: ClassWords | None, palette: Any = None):
        self.paths = [str(path) for path in paths]
        self.classes = classes
        self.palette = palette
        self.failures: dict[str, str] = {}

    def settings(self, **options: Any) -> ModelSettings:
        """Settings of a model that is to look at these images; default the miniature."""
        return ModelSettings.from_options(options if NAMING.keys() & options else {**options, "clip_type": "Miniature"})

    def scores(self, model: ClearCLIP, methods: Sequence[Method], work_dir: Path) -> dict[str, float]:
        """mIoU in percent by the methods' labels; empty where there is no ground truth."""
        return {}

    def truth(self, path: str) -> np.ndarray | None:
        """Ground truth of an image, (H, W) integers, where there is any."""

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """Those images that can be read, (H, W, 3) uint8 RGB.

        Raises:
            UserError: none of all images can.
        """
        images = {}
        for path in paths:
            try:
                images[path] = read_image(path)
            except UserError as error:
                self.failures[path] = str(error)
                tqdm.write(f"skipped: {error}", file=sys.stderr)
        if len(self.failures) == len(self.paths):
            raise UserError(f"none of the {len(self.paths)} images can be used; see the reasons above")
        return images

    @property
    def usable(self) -> list[str]:
        """Images that no step has found fault with."""
        return [path for path in self.paths if path not in self.failures]

    def squares(self, model: ClearCLIP) -> Iterator[Tensor]:
        """All images as CLIP was trained to see them, short side resized and centre cut out: (B, 3, side, side)."""
        side, paths = model.image_encoder.fixed_size or model.image_encoder.image_side, self.usable
        for start in tqdm(range(0, len(paths), BATCH), desc="statistics", unit="batch", dynamic_ncols=True):
            squares = [
                center_crop(resize(Image.fromarray(image), side, InterpolationMode.BICUBIC), side)
                for image in self.read(paths[start : start + BATCH]).values()
            ]
            if squares:
                yield torch.stack([model.normalize(np.array(square)) for square in squares])


class Benchmark(Images):
    """The images of a config, or the first ``limit``; ``overrides`` and ``data_root`` as for ``load_config``.

    Raises:
        UserError: the config is broken, or the dataset is not there or does not fit it.
    """

    def __init__(self, config: str | Path, overrides: dict[str, Any], data_root: str | None, limit: int | None):
        self.cfg, self.limit = load_config(config, overrides, data_root), limit
        quick_check(self.cfg)
        # The steps of a pipeline are looked up in MMSegmentation's registry, as its runner would.
        with DefaultScope.overwrite_default_scope("mmseg"):
            self._dataset = mmseg.CheckedDataset({**self.cfg.test_dataloader.dataset, "test_mode": True}, limit)
        paths = [self._dataset.dataset.get_data_info(index)["img_path"] for index in self._dataset.todo]
        super().__init__(paths, class_words(self.cfg), self._dataset.metainfo.get("palette"))

    def settings(self, **options: Any) -> ModelSettings:
        """The config's; ``options`` that name a model replace the config's model, but not its windows."""
        named = NAMING if NAMING.keys() & options else {}
        return replace(model_settings(self.cfg), **{**named, **options})

    def scores(self, model: ClearCLIP, methods: Sequence[Method], work_dir: Path) -> dict[str, float]:
        """mIoU in percent by the methods' labels, in one evaluation; one that was killed goes on where it stopped."""
        self.cfg.model.update({option.name: getattr(model.settings, option.name) for option in fields(ModelSettings)})
        found = evaluate(
            self.cfg, work_dir, model=model, methods=methods, limit=self.limit, resume="auto", on_error="skip"
        )
        self.failures.update(found[0].failures)
        return {one.method.label: one.scores.summary["mIoU"] for one in found}

    def truth(self, path: str) -> np.ndarray:
        sample = self._dataset[self.paths.index(path)]["data_samples"]
        return sample.gt_sem_seg.data.squeeze(0).numpy()
