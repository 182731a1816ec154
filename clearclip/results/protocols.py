"""The protocols that the family's papers evaluate by: what of a benchmark's config each of them changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearclip.results.rows import BENCHMARKS, WITH_BACKGROUND
from clearclip.utils.errors import UserError

#: clearclip is the configs' own; naclip is that of NACLIP; resclip is the same without PAMR.
PROTOCOLS = ("clearclip", "naclip", "resclip")
_SHORT_SIDE = {"city_scapes": 560}  # the others 336
_WHOLE = ("voc20", "voc21")  # images that are taken at once, without windows
_WORDS = ("voc20", "voc21", "coco_object")  # datasets with other class words


def protocol_overrides(protocol: str, dataset: str, root: Path) -> dict[str, Any]:
    """What a protocol overrides in a benchmark's config: dotted names to values.

    Args:
        protocol: one of :data:`PROTOCOLS`.
        dataset: the benchmark.
        root: the folder that has ``config/``.

    Raises:
        UserError: a dataset that the protocol says nothing about.
    """
    if protocol == "clearclip":
        return {}
    if dataset not in BENCHMARKS:
        raise UserError(f"protocol {protocol} is for the benchmarks, not for {dataset}; leave --protocol out")
    words = {"model.name_path": str(root / "config" / f"cls_{dataset}_naclip.txt")} if dataset in _WORDS else {}
    return {
        "test_dataloader.dataset.pipeline.1.scale": (2048, _SHORT_SIDE.get(dataset, 336)),
        "model.slide_crop": 0 if dataset in _WHOLE else 224,
        "model.slide_stride": 112,
        "model.logit_scale": 40.0,
        "model.prob_thd": 0.1 if dataset in WITH_BACKGROUND else 0.0,
        "model.post": "pamr" if protocol == "naclip" else None,
        **words,
    }
