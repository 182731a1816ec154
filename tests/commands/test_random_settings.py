"""Any value of any option runs, or is a clear error: settings that nobody thought of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clearclip import METHODS, UserError
from clearclip.commands.eval import eval_command
from clearclip.evaluation.config import SEGMENTOR_OPTIONS
from clearclip.model_settings import ModelSettings

ROOT = Path(__file__).resolve().parents[2]
#: 2,000 once before a release: CLEARCLIP_SETTINGS=2000 pytest --timeout 0 tests/commands/test_random_settings.py
EXAMPLES = int(os.environ.get("CLEARCLIP_SETTINGS", "300"))

DATASET = ("ann_file", "img_suffix", "seg_map_suffix", "data_root", "type", "data_prefix", "pipeline")
DATASET += ("reduce_zero_label", "ignore_index", "metainfo")
OPTIONS = sorted(
    {f"model.{name}" for name in (*ModelSettings.__dataclass_fields__, *SEGMENTOR_OPTIONS)}
    | {"model", "model.keep_logits", "test_dataloader", "test_dataloader.batch_size", "test_dataloader.num_workers"}
    | {f"test_dataloader.dataset.{name}" for name in DATASET}
    | {"test_evaluator", "test_cfg", "dataset_name", "expected_images", "default_hooks", "custom_hooks", "env_cfg"}
    | {"log_level", "default_scope", "test_dataloader.dataset"}
    | {"test_dataloader.sampler", "test_dataloader.sampler.type", "test_dataloader.pin_memory", "custom_imports"}
    | {"test_dataloader.dataset.pipeline.0.type", "test_dataloader.dataset.data_prefix.img_path", "visualizer"}
    | {"test_evaluator.type", "test_cfg.type", "default_hooks.timer", "model.nothing", "nothing", "work_dir"}
)
VALUES = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([-(10**9), 10**9, 0.5, 1e300, True, False, None, "nan", "inf", "", ".", "cpu", "cuda", "[]", "{}"]),
    st.sampled_from(["[1,2]", "['a','b']", "(1, 2)", "dict()", "{'type': 'GEM'}", "{'type': 5}", "type=x", "a b", "ä"]),
    st.sampled_from([*METHODS, "BLIP", "Miniature", "ViT-B/16", "fp16", "bf16", "random", "openai", "IoUMetric"]),
    st.floats(-2, 2),
    st.text("abc-/.:", max_size=4),
).map(str)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the runs go. Without a network: weights that would be downloaded are missing. Without a workbook, which
    does not depend on settings, and takes half of the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clearclip.results.workbook.update_workbook", lambda results: True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield tmp_path_factory.mktemp("settings")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@example(options={"model.device": "nan"})
@example(options={"test_dataloader.dataset.type": "."})
@example(options={"test_dataloader.dataset.reduce_zero_label": "nan"})
@example(options={"test_dataloader.dataset.ignore_index": "0.5"})
@example(options={"log_level": "cuda"})
@example(options={"default_hooks": "3"})
@example(options={"default_hooks": "[]"})
@example(options={"test_cfg.type": "nan"})
@given(options=st.dictionaries(st.sampled_from(OPTIONS), VALUES, min_size=1, max_size=3))
def test_any_setting(options, folder, quick_name):
    common = ["--config", str(ROOT / "config" / "cfg_miniature.py"), "--limit", "1", "--workdir", str(folder / "work")]
    common += ["--results", str(folder / "results.xlsx"), "--device", "cpu"]
    model = [f"model.model_name={quick_name}", "model.clip_type=None", "model.vit_type=None"]
    given_options = [f"{name}={value}" for name, value in options.items()]
    try:
        assert eval_command([*common, "--cfg-options", *model, "test_dataloader.num_workers=0", *given_options]) == 0
    except UserError as error:
        assert str(error)
