"""The images that an analysis looks at: any, or a benchmark's, which have ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, center_crop, resize
from tqdm import tqdm

from clearclip import evaluation
from clearclip.analysis.variants import CLEARCLIP, CLIP, FEATURES
from clearclip.evaluation.config import class_words, explaining_errors, load_config, model_settings
from clearclip.evaluation.dataset_report import quick_check
from clearclip.evaluation.run import evaluate
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.model_settings import WEIGHT_OPTIONS, ModelSettings
from clearclip.text import ClassWords
from clearclip.utils.images import read_image
from clearclip.visualize import class_palette, grid_picture, save_image

#: From what CLIP is to what ClearCLIP is, one switch at a time, and X_res alone.
SWITCHES = {
    "CLIP": CLIP,
    "X_sum: no FFN": FEATURES["X_sum"],
    "X_res alone": FEATURES["X_res"],
    "X_attn alone": FEATURES["X_attn"],
    "ClearCLIP: q-q": CLEARCLIP,
}
IMAGES_ON_A_PAGE = 3


@dataclass
class AnalysisImages:
    """The images of an analysis, and for a benchmark its config and ground truth.

    Attributes:
        paths: image files.
        classes: what to look for; None where there are no words.
        cfg: a benchmark's config.
        dataset: a benchmark's :class:`~clearclip.evaluation.CheckedDataset`.
    """

    paths: Sequence[Any]
    classes: ClassWords | None
    cfg: Config | None = None
    dataset: evaluation.CheckedDataset | None = None

    @classmethod
    def of_benchmark(
        cls, config: Any, overrides: dict[str, Any], data_root: str | None, limit: int | None
    ) -> AnalysisImages:
        """The images of a config, or the first ``limit``; ``overrides`` and ``data_root`` as for ``load_config``.

        Raises:
            UserError: the config is broken, or the dataset is not there or does not fit it.
        """
        cfg = load_config(config, overrides, data_root)
        # The steps of a pipeline are looked up in MMSegmentation's registry, as its runner would.
        with explaining_errors(f"config {config}", overrides):
            quick_check(cfg)
            dataset = evaluation.CheckedDataset(cfg.test_dataloader.dataset, limit)
        paths = [dataset.dataset.get_data_info(index)["img_path"] for index in dataset.todo]
        return cls(paths, class_words(cfg), cfg, dataset)

    def settings(self, **options: Any) -> ModelSettings:
        """Settings of a model that is to look at these images: a config's, whose windows another model keeps."""
        if self.cfg is None:
            return ModelSettings.from_options(options)
        settings = model_settings(self.cfg)
        if not options.keys().isdisjoint(WEIGHT_OPTIONS):
            # The names of another model must not mix with the config's.
            settings = replace(settings, **dict.fromkeys(WEIGHT_OPTIONS))
        return replace(settings, **options)

    def picture(self, index: int) -> np.ndarray:
        """An image, (H, W, 3) uint8 RGB; a benchmark's as its pipeline loads it."""
        if self.dataset is None:
            return read_image(self.paths[index])
        return self.dataset.image(index)

    def squares(self, model: ClearCLIP) -> Iterator[Tensor]:
        """Each image as CLIP was trained to see it, short side resized and centre cut out: (1, 3, side, side)."""
        side = model.image_encoder.fixed_size or model.image_encoder.image_size
        for index in tqdm(range(len(self.paths)), desc="statistics", unit="image", dynamic_ncols=True):
            image = resize(Image.fromarray(self.picture(index)), side, InterpolationMode.BICUBIC)
            yield model.normalize(np.array(center_crop(image, side)))[None]

    def scores(self, model: ClearCLIP, methods: Sequence[Method], work_dir: Path) -> dict[str, float]:
        """A benchmark's mIoU in percent by the methods' labels, in one evaluation, which goes on if it was killed."""
        # The record of the evaluation is to have the options of the model that is there.
        for option_field in fields(ModelSettings):
            self.cfg.model[option_field.name] = getattr(model.settings, option_field.name)
        evaluations = evaluate(self.cfg, work_dir, model=model, methods=methods, limit=len(self.paths), resume="auto")
        return {evaluation.method: evaluation.scores.summary["mIoU"] for evaluation in evaluations}

    def draw_maps(self, model: ClearCLIP, methods: Sequence[Method], path: Path) -> None:
        """Write a page: images spread over the input in rows; truth, variants and ``methods`` in columns.

        Raises:
            UserError: the place cannot be written.
        """
        count = min(IMAGES_ON_A_PAGE, len(self.paths))
        indices = np.linspace(0, len(self.paths) - 1, count).round().astype(int)
        pictures = [self.picture(index) for index in indices]
        results = model.compare(pictures, self.classes, [*SWITCHES.values(), *methods])
        name_by_label = {method.label: name for name, method in SWITCHES.items()}
        method_titles = [name_by_label.get(label, label) for label in results[0]]
        titles = ["image", *method_titles]
        rows = []
        for picture, result_by_method in zip(pictures, results, strict=True):
            label_maps = [result.labels for result in result_by_method.values()]
            rows.append([picture, *label_maps])
        palette = None
        if self.dataset is not None:
            palette = self.dataset.metainfo.get("palette")
            # Beside the image, so that each map is compared with it from the same side.
            titles.insert(1, "ground truth")
            for index, row in zip(indices, rows, strict=True):
                truth = self.dataset[index]["data_samples"].gt_sem_seg.data
                row.insert(1, truth.squeeze(0).numpy())
        legend = list(zip(self.classes.names, class_palette(self.classes.names, palette), strict=True))
        save_image(grid_picture(rows, titles, legend, model.label), path)
