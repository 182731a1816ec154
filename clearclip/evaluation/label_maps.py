"""Label maps of images that have no masks, such as a test set's, in the format that its server takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmseg.registry import MODELS
from tqdm import tqdm

from clearclip.evaluation.checked_dataset import CheckedDataset, explaining_dead_workers
from clearclip.evaluation.config import explaining_errors, load_config, model_settings
from clearclip.evaluation.datasets import plain_datasets
from clearclip.evaluation.label_map_formats import LabelMapFormat, file_names, label_map_format
from clearclip.evaluation.launchers import launcher_of_environment
from clearclip.evaluation.mmengine_runner import build_loader
from clearclip.evaluation.open_files import sharing_that_fits
from clearclip.evaluation.overrides import check_given_twice
from clearclip.evaluation.processes import failing_together, process_group, values_of_all_processes
from clearclip.evaluation.segmentor import FrozenModelWrapper
from clearclip.methods import Method
from clearclip.model import ClearCLIP
from clearclip.utils.devices import choose_device
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.visualize import save_image


@dataclass(frozen=True)
class WrittenLabelMaps:
    """What :func:`write_label_maps` wrote.

    Attributes:
        images: how many have a label map.
        failures: path of an image that was skipped → the reason.
        format_name: whose ids and names the files have, in words.
        is_main: whether this is the process that reports (rank 0).
    """

    images: int
    failures: dict[str, str]
    format_name: str
    is_main: bool


def write_label_maps(
    config: str | Path,
    folder: str | Path,
    *,
    methods: Sequence[str | dict | Method] | None = None,
    overrides: dict[str, Any] | None = None,
    data_root: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    launcher: str | None = None,
    on_error: str = "stop",
) -> WrittenLabelMaps:
    """Segment the images of a config's dataset and write a label map for each; masks are not looked for.

    Args:
        config: a config file.
        folder: where the files go; with several methods, a folder for each method in it.
        methods, overrides, data_root, device, batch_size, workers, limit, launcher, on_error: see
            :func:`clearclip.evaluation.run.evaluate`.

    Raises:
        UserError: whatever a user can fix.
    """
    check_folder("--out", folder)
    launcher = launcher or launcher_of_environment()
    with process_group(launcher, device):
        with failing_together("before the first image"), explaining_errors(f"config {config}", overrides):
            cfg = load_config(config, overrides, data_root)
            check_given_twice(overrides or {}, device=device, batch_size=batch_size, workers=workers, methods=methods)
            dataset = CheckedDataset(cfg.test_dataloader.dataset, limit, masks=False)
            # Parts of a ConcatDataset share their classes, so the first one's format serves all.
            label_maps = label_map_format(plain_datasets(dataset.dataset)[0])
            settings = replace(model_settings(cfg), device=choose_device(device or cfg.model.get("device")))
            options = {"device": settings.device, "model": ClearCLIP.from_settings(settings)}
            if methods:
                options["methods"] = methods
            segmentor = MODELS.build({**cfg.model.to_dict(), **options})
            loader = build_loader(cfg, dataset, batch_size, workers, options["model"].device)
        with failing_together("while label maps were written"), explaining_dead_workers(), sharing_that_fits(loader):
            failures = _write_all(FrozenModelWrapper(segmentor), loader, dataset, label_maps, Path(folder), on_error)
        for failures_of_process in values_of_all_processes(failures):
            failures.update(failures_of_process)
        is_main = dist.get_rank() == 0
    return WrittenLabelMaps(dataset.total - len(failures), failures, label_maps.name, is_main)


def _write_all(
    wrapper: FrozenModelWrapper,
    loader: Any,
    dataset: CheckedDataset,
    label_maps: LabelMapFormat,
    folder: Path,
    on_error: str,
) -> dict[str, str]:
    """Write this process's share of the label maps; the images that were skipped, with the reasons."""
    names = file_names(dataset.names, label_maps)
    methods = wrapper.module.methods
    failures: dict[str, str] = {}
    total = dataset.total
    with closing(tqdm(total=total, desc="segmenting", unit="image", disable=dist.get_rank() != 0)) as bar:
        for batch in loader:
            # No runner of MMEngine's: there is nothing to count.
            with torch.inference_mode():
                samples = wrapper.test_step(batch)
            for sample in samples:
                if sample.failure is not None:
                    if on_error == "stop":
                        raise UserError(f"{sample.failure}; or go on without it (--on-error skip)")
                    failures[sample.img_path] = sample.failure
                    continue
                for method, labels in zip(methods, sample.pred_methods.data, strict=True):
                    method_folder = folder
                    # A server takes a folder of one method's maps as it is.
                    if len(methods) > 1:
                        method_folder = folder / method.label.replace(" ", "")
                    save_image(
                        label_maps.image(labels.cpu().numpy()), method_folder / names[sample.index], lossless=True
                    )
            bar.update(min(len(samples) * dist.get_world_size(), total - bar.n))
    return failures
