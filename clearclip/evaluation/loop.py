"""The test loop: progress, and images that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine import dist
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import TestLoop
from mmseg.registry import LOOPS
from torch import nn
from tqdm import tqdm

from clearclip.errors import UserError
from clearclip.evaluation.metric import ConfusionMetric


@MODEL_WRAPPERS.register_module()
class Replica(nn.Module):
    """Each process's own copy of a frozen model. DistributedDataParallel refuses a model without gradients."""

    def __init__(self, module: nn.Module, **_: Any):
        super().__init__()
        self.module = module

    def test_step(self, data: dict) -> list:
        """Predict a batch."""
        return self.module.test_step(data)

    val_step = test_step


@LOOPS.register_module()
class EvaluationLoop(TestLoop):
    """MMEngine's test loop with a progress bar and a rule for images that cannot be used.

    Args:
        on_error: "stop" ends the run at the first such image, "skip" counts and lists them.
        on_result: called with (sample, class names, palette) for every image, for pictures.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        on_error: str = "stop",
        on_result: Callable[[Any, list[str], list[list[int]]], None] | None = None,
        **kwargs: Any,
    ):
        super().__init__(runner, dataloader, evaluator, **kwargs)
        self.on_error = on_error
        self.on_result = on_result

    @property
    def metric(self) -> ConfusionMetric | None:
        """The metric that keeps counts per image."""
        return next((metric for metric in self.evaluator.metrics if isinstance(metric, ConfusionMetric)), None)

    def run(self) -> dict:
        """Evaluate; returns the metrics."""
        dataset = self.dataloader.dataset
        total = getattr(dataset, "total", len(dataset))
        self.bar = tqdm(
            total=total,
            initial=total - len(dataset),
            desc="evaluating",
            unit="image",
            disable=dist.get_rank() != 0,
            dynamic_ncols=True,
        )
        with self.bar:
            return super().run()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """One batch, without the images that cannot be used."""
        batch = self._usable(data_batch)
        if batch["inputs"]:
            self.runner.call_hook("before_test_iter", batch_idx=idx, data_batch=batch)
            outputs = self.runner.model.test_step(batch)
            self.evaluator.process(data_samples=outputs, data_batch=batch)
            if self.on_result is not None:
                meta = self.dataloader.dataset.metainfo
                for sample in outputs:
                    self.on_result(sample, list(meta["classes"]), meta["palette"])
            self.runner.call_hook("after_test_iter", batch_idx=idx, data_batch=batch, outputs=outputs)
        seen = len(data_batch["inputs"]) * dist.get_world_size()
        self.bar.update(min(seen, self.bar.total - self.bar.n))

    def _usable(self, batch: dict) -> dict:
        failures = batch.get("failure") or [None] * len(batch["inputs"])
        for image, failure in zip(batch.get("image", failures), failures, strict=True):
            if failure is None:
                continue
            if self.on_error == "stop":
                raise UserError(f"image {image}: {failure}; mend it, or go on without it (--on-error skip)")
            self.metric.fail(image, failure)
        good = [index for index, failure in enumerate(failures) if failure is None]
        return {name: [batch[name][index] for index in good] for name in ("inputs", "data_samples")}
