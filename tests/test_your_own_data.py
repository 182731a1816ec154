"""The page docs/your_own_data.md, from folders to a row."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_datasets import blocks, save_pairs
from mmengine.config import Config
from numpy_scores import mean_iou
from openpyxl import load_workbook

from clearclip import ClearCLIP

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8")
CONFIG = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)


def test_the_page_from_folders_to_a_row(tmp_path, monkeypatch, capsys, quick_name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "config" / "base_config.py", "config")
    Path("config/cfg_camvid.py").write_text(CONFIG)
    assert len(CONFIG.strip().splitlines()) <= 20
    rng = np.random.default_rng(0)
    truths = {name: blocks(rng, (72, 96), range(12)) for name in ("f0", "f1", "night/f0")}
    save_pairs(Path("data/CamVid"), ("test", "testannot"), (".png", ".png"), truths)

    def run(line):
        script, *arguments = line.split()[1:]
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert stop.value.code == 0, capsys.readouterr()
        return capsys.readouterr().out

    check, evaluate = re.search(r"```shell\n(.*?)```", PAGE, re.DOTALL).group(1).strip().splitlines()
    assert "1 of 1 complete" in run(check)
    options = f"model.model_name={quick_name} model.slide_crop=64 model.slide_stride=32"
    run(f"{evaluate} --show-dir shown --device cpu --cfg-options {options}")

    assert sorted(path.name for path in Path("shown").iterdir()) == ["f0.png", "f1.png", "night-f0.png"]
    cfg = Config.fromfile("config/cfg_camvid.py")
    model = ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=64, slide_stride=32)
    found = {name: model.segment(f"data/CamVid/test/{name}.png", cfg.words).labels for name in truths}
    expected = mean_iou([*truths.values()], [*found.values()], 11, 11)
    header, row = list(load_workbook("results.xlsx")["runs"].values)[1:3]
    values = dict(zip(header, row, strict=True))
    assert (values["dataset"], values["images"]) == ("camvid", 3)
    assert values["mIoU"] == pytest.approx(expected, abs=0.006)
