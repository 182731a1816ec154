"""Bad input to the command lines: exit code 2, one line that names culprit and remedy, nothing written.

One case for each kind of mistake; what the parts themselves refuse is tested with them.
"""

from __future__ import annotations

import os
import pickle
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "cfg_miniature.py"
# With a model that loads in no time; options of the model follow.
RUN = f"--config {CONFIG} --cfg-options model.clip_type=None model.vit_type=None model.model_name={{model}}"

#: By script: arguments, what the line must name, a word of the remedy.
CASES = {
    "eval.py": [
        ("", "--config", "--help"),
        ("--config none.py", "none.py", "config/"),
        ("--config photo.png", "photo.png", "base_config.py"),
        ("--config configs/syntax.py", "configs/syntax.py", "base_config.py"),
        ("--config configs/crash.py", "ZeroDivisionError", "base_config.py"),
        ("--config configs/empty.py", "'model'", "base_config.py"),
        ("--config configs/other_model.py", "EncoderDecoder", "ClearCLIPSegmentation"),
        ("--config configs/other_dataset.py", "MoonDataset", "dataset.type"),
        (f"{RUN} --data-root none", "none", "datasets/README.md"),
        (f"{RUN} model.name_path=names/none.txt", "names/none.txt", "one class per line"),
        (f"{RUN} model.name_path=names/short.txt", "2 classes", "one line for each"),
        (f"{RUN} model.name_path=names/blank.txt", "line 2", "remove or fill"),
        (f"{RUN} model.name_path=names/latin.txt", "names/latin.txt", "UTF-8"),
        (f"{RUN} model.name_path=None model.class_names=5", "class_names", "list of strings"),
        (f"{RUN} model.clip_type=CLAP", "'CLAP'", "MetaCLIP"),
        (f"{RUN} model.ignore_residual=maybe", "'maybe'", "True or False"),
        (f"{RUN} model.alpha=nan", "alpha", "number"),
        (f"{RUN} model.model_type=GEM model.alpha=2", "alpha", "leave"),
        (f"{RUN} model.model_type=GEM", "6 blocks", "deeper model"),
        (f"{RUN} model.slide_stride=65", "slide_stride 65", "slide_crop"),
        (f"{RUN} model.slide_crops=64", "'slide_crops'", "did you mean slide_crop?"),
        (f"{RUN} model.slide_crop.x=5", "slide_crop", "base_config.py"),
        (f"{RUN} test_dataloader.batch_size=x", "batch_size", "base_config.py"),
        (f"{RUN} nothing", "'nothing'", "key=value"),
        (f"{RUN} model.model_name=ViT-Z", "'ViT-Z'", "list_models"),
        (f"{RUN} model.model_name=ViT-B-16 model.pretrained=laion5b", "'laion5b'", "tags: "),
        (f"{RUN} model.model_name=RN50 model.pretrained=random", "ModifiedResNet", "ViT-B-16"),
        (f"{RUN} model.clip_type=BLIP model.model_name=None model.pretrained=none.pth", "none.pth", "check"),
        (f"{RUN} model.pretrained=weights/garbage.safetensors", "weights/garbage.safetensors", "whole"),
        (f"{RUN} model.pretrained=weights/few.pt", "visual.proj", "belong together"),
        (f"{RUN} model.pretrained=weights/nan.pt", "visual.proj", "download them again"),
        (f"{RUN} model.pretrained=weights/harmful.pkl", "weights/harmful.pkl", "safetensors"),
        (f"{RUN} model.model_name=local-dir:models/none", "models/none", "open_clip_config.json"),
        (f"{RUN} model.model_name=local-dir:models/broken", "models/broken", "whole"),
        (f"{RUN} --device cuda:9", "cuda:9", "--device cpu"),
        (f"{RUN} --launcher pytorch", "RANK", "dist_test.sh"),
        (f"{RUN} --launcher slurm", "SLURM_PROCID", "srun"),
        (f"{RUN} --batch-size 0", "batch size", "at least 1"),
        (f"{RUN} --results results.csv", "results.csv", ".xlsx"),
        (f"{RUN} --workdir notes.txt", "notes.txt", "folder"),
        (f"{RUN} --resume", "settings.json", "without --resume"),
        (f"{RUN} --resume --workdir work_dirs/other", "dataset was 'another'", "without --resume"),
        (f"{RUN} --show-dir notes.txt", "notes.txt", "another"),
    ],
    "eval_all.py": [
        ("--rows BestCLIP", "'BestCLIP'", "ClearCLIP"),
        ("--miniature --datasets voc20", "'voc20'", "miniature"),
        ("--gpus 0", "--gpus", "at least 1"),
        ("--device cuda:9", "cuda:9", "--device cpu"),
        ("--dry-run --cfg-options model.prob_thd=x", "'x'", "number"),
        ("--rebuild", "results.jsonl", "--results"),
    ],
    "demo.py": [
        ("--out shown photo.png --classes sky,tree --prob-thd x", "'x'", "--help"),
        ("--out shown photo.png --classes sky,tree --model {model} --model-type GEM", "6 blocks", "deeper model"),
        ("--web --port 99999 --classes sky,tree --model {model}", "99999", "--port"),
    ],
    "analyze.py": [
        (f"--out found --config {CONFIG} --data-root none", "none", "datasets/README.md"),
        ("--out notes.txt", "notes.txt", "folder"),
    ],
    "datasets/check.py": [
        ("configs/syntax.py", "configs/syntax.py", "base_config.py"),
        ("--sample 0", "0", "1 or more"),
    ],
    "datasets/cvt_coco_object.py": [("none -o made", "none", "root of COCO-Stuff")],
}
ALL = [pytest.param(script, *case, id=f"{script} {case[0]}") for script, cases in CASES.items() for case in cases]


class Harmful:
    """Unpickled by a careless loader, it leaves a folder behind."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture
def world(quick_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, full of broken things."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    Image.new("RGB", (60, 40)).save("photo.png")
    inherit = f'_base_ = "{CONFIG}"\n'
    for name, text in {
        "notes.txt": "no image",
        "results.xlsx": "somebody's own workbook",
        "configs/empty.py": "",
        "configs/syntax.py": "model = dict(",
        "configs/crash.py": "model = 1 / 0",
        "configs/other_model.py": f'{inherit}model = dict(type="EncoderDecoder")',
        "configs/other_dataset.py": f'{inherit}test_dataloader = dict(dataset=dict(type="MoonDataset"))',
        "names/short.txt": "sky\ntree",
        "names/blank.txt": "sky\n\ntree",
        "weights/garbage.safetensors": "no weights",
        "models/broken/open_clip_config.json": "{",
        "work_dirs/other/journal/settings.json": '{"dataset": "another"}',
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("names/latin.txt").write_bytes("Bäume".encode("latin-1"))
    whole = torch.load(Path(quick_name.removeprefix("local-dir:"), "open_clip_pytorch_model.bin"), weights_only=True)
    torch.save({name: tensor for name, tensor in whole.items() if name != "visual.proj"}, "weights/few.pt")
    torch.save({**whole, "visual.proj": torch.full_like(whole["visual.proj"], torch.nan)}, "weights/nan.pt")
    Path("weights/harmful.pkl").write_bytes(pickle.dumps(Harmful()))
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every path below ``folder`` with what it holds; None for folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def check(code: int, error: str, culprit: str, remedy: str) -> None:
    """Exit code 2, and one line that has both words; warnings and the text's progress may stand before it."""
    assert code == 2, error
    others = ("warning: ", "text features:")
    (line,) = [line for line in error.splitlines() if line.strip() and not line.startswith(others)]
    assert line.startswith("error: ")
    assert culprit in line
    assert remedy in line
    assert len(line) < 1200


@pytest.mark.parametrize("script, arguments, culprit, remedy", ALL)
def test_one_line_and_nothing_written(script, arguments, culprit, remedy, world, quick_name, monkeypatch, capfd):
    before = contents(world)
    monkeypatch.setattr(sys, "argv", [script, *shlex.split(arguments.format(model=quick_name))])
    with pytest.raises(SystemExit) as stop:
        # In this process, which spares it the imports.
        runpy.run_path(str(ROOT / script), run_name="__main__")
    check(stop.value.code, capfd.readouterr().err, culprit, remedy)
    assert contents(world) == before


@pytest.mark.parametrize(
    "variables, arguments, culprit, remedy",
    [
        ({}, "none.py", "none.py", "config/"),
        ({"GPUS": "two"}, CONFIG, "'two'", "whole number"),
        ({"GPUS": "1", "NNODES": "2"}, CONFIG, "NNODES=2", "PORT"),
        ({"GPUS": "1"}, f"{CONFIG} --data-root none", "none", "datasets/README.md"),
    ],
)
def test_processes(variables, arguments, culprit, remedy, world, monkeypatch):
    for name in ("GPUS", "NNODES", "NODE_RANK", "PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    before = contents(world)
    command = ["bash", str(ROOT / "dist_test.sh"), *str(arguments).split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    check(done.returncode, done.stderr, culprit, remedy)
    assert done.stdout == ""
    assert contents(world) == before


@pytest.mark.parametrize("script", [*CASES, *(f"tools/{path.name}" for path in sorted((ROOT / "tools").glob("*.py")))])
def test_help(script, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stop.value.code == 0
    out, error = capfd.readouterr()
    assert out.startswith("usage: ") and error == ""
