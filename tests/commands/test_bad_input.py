"""Every command line with bad input, a case for each kind of mistake: exit code 2, one line that names culprit and
remedy, nothing written.
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import make_layout
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# A real config with a model that loads in no time; options of the model follow.
TINY = "model.model_name={model} model.slide_crop=64 model.slide_stride=32"
VOC = f"--config {ROOT / 'config' / 'cfg_voc21.py'} --cfg-options {TINY}"
TOO_LONG = "too long" if sys.version_info < (3, 14) else "does not exist"  # what pathlib makes of such a name
SHOW = '--out shown photo.png --classes "sky, tree" --device cpu'

#: By script: arguments, what the line must name, a word of the remedy.
CASES = {
    "eval.py": [
        ("", "--config", "--help"),
        ("--config none.py", "none.py", "config/"),
        (f"--config {'a' * 5000}.py", "aaa", "config/"),
        (f"--config {ROOT / 'config' / 'cfg_miniature.py'} --data-root {'a' * 5000}", "aaa", TOO_LONG),
        ("--config photo.png", "photo.png", "base_config.py"),
        ("--config crash.py", "ZeroDivisionError", "base_config.py"),
        ("--config no_model.py", "'model'", "base_config.py"),
        (f"{VOC} model.type=EncoderDecoder", "EncoderDecoder", "ClearCLIPSegmentation"),
        (f"{VOC} test_dataloader.dataset.type=MoonDataset", "MoonDataset", "dataset.type"),
        (f"{VOC} --data-root none", "none", "datasets/README.md"),
        (f"{VOC} --data-root faults/no_list", "val.txt", "datasets/README.md"),
        (f"{VOC} --data-root faults/no_image", ".jpg is missing", "datasets/README.md"),
        (f"{VOC} --data-root faults/mask_ids", "99", "datasets/README.md"),
        (f"{VOC} --data-root faults/mask_text", ".png cannot be read", "again"),
        (f"{VOC} model.name_path=none.txt", "none.txt", "one class per line"),
        (f"{VOC} model.name_path=short.txt", "20 classes", "one line for each"),
        (f"{VOC} model.name_path=blank.txt", "line 1", "remove or fill"),
        (f"{VOC} model.name_path=latin.txt", "latin.txt", "UTF-8"),
        (f"{VOC} model.class_names=[sky,tree]", "class_names", "not both"),
        (f"{VOC} model.slide_crops=64", "'slide_crops'", "did you mean slide_crop"),
        (f"{VOC} model.clip_type=CLAP", "'CLAP'", "did you mean CLIP?"),
        (f"{VOC} model.prob_thd=2", "prob_thd", "from 0 to 1"),
        (f"{VOC} modle.prob_thd=0.2", "'modle.prob_thd'", "give model.prob_thd=0.2"),
        (f"{VOC} model.slide_stride=65", "slide_stride 65", "slide_crop"),
        (f"{VOC} model.slide_crop.x=5", "model.slide_crop.x", "base_config.py"),
        (f"{VOC} model.model_type=GEM", "6 blocks", "deeper model"),
        (f"{VOC} model.attention=kk", "attention", "method=dict(type='ClearCLIP', attention='kk')"),
        (f"{VOC} model.method.type=GEM model.method.ffn=True", "no option 'ffn'", "choose from residual"),
        (f"{VOC} model.model_name=ViT-Z", "'ViT-Z'", "list_models"),
        (f"{VOC} model.model_name=RN50 model.pretrained=random", "ModifiedResNet", "ViT-B-16"),
        (f"{VOC} model.model_name=ViT-B-16 model.pretrained=laion5b", "'laion5b'", "tags: "),
        (f"{VOC} model.pretrained=garbage.safetensors", "garbage.safetensors", "whole"),
        (f"{VOC} model.pretrained=few.pt", "visual.proj", "belong together"),
        (f"{VOC} model.pretrained=nan.pt", "visual.proj", "again"),
        (f"{VOC} model.pretrained=harmful.pt", "harmful.pt", "safetensors"),
        (f"{VOC} model.model_name=local-dir:empty", "empty", "open_clip_config.json"),
        (f"{VOC} --device cuda:9", "cuda:9", "--device cpu"),
        (f"{VOC} --launcher pytorch", "RANK", "dist_test.sh"),
        (f"{VOC} --batch-size 0", "batch size", "at least 1"),
        (f"{VOC} nothing", "'nothing'", "key=value"),
        (f"{VOC} --results results.csv", "results.csv", ".xlsx"),
        (f"{VOC} --workdir notes.txt", "notes.txt", "folder"),
        (f"{VOC} --resume", "cfg_voc21", "without --resume"),
        (f"{VOC} --resume --workdir other", "other/journal", "without --resume"),
        (f"{VOC} --show-dir notes.txt", "notes.txt", "another"),
    ],
    "eval_all.py": [
        ("--rows BestCLIP", "'BestCLIP'", "ClearCLIP"),
        ("--miniature --datasets voc20", "'voc20'", "miniature"),
        ("--gpus 0", "--gpus", "at least 1"),
        ("--dry-run --cfg-options model.prob_thd=x", "'x'", "number"),
        ("--rebuild", "results.jsonl", "--results"),
    ],
    "demo.py": [
        ("--out shown photo.png", "no words", "such as"),
        ('--out shown photo.png --classes "sky"', "'sky'", "two classes"),
        ('--out shown none.png --classes "sky, tree"', "none.png", "image files"),
        ('--out shown notes.txt --classes "sky, tree"', "notes.txt", "JPEG"),
        ('--out shown --clip-type CLIP --classes "sky, tree"', "no image", "photo.jpg"),
        (f"{SHOW} --prob-thd 2", "prob_thd", "0 to 1"),
        (f"{SHOW} --import none.py", "none.py", "check its name"),
        (f"{SHOW} --import crash.py", "ZeroDivisionError", "line 1"),
        (f"{SHOW} --model-type BestCLIP", "'BestCLIP'", "SCLIP"),
        ('photo.png --classes "sky, tree" --model {model} --out notes.txt', "notes.txt", "another"),
        ("--web --port 99999", "99999", "--port"),
    ],
    "analyze.py": [
        ("--out found --config none.py", "none.py", "config/"),
        ("--out found none.png", "none.png", "image files"),
        ("--out found photo.png --only scores", "masks", "--config"),
        ("--out found --model ViT-Z", "'ViT-Z'", "list_models"),
        ("--out notes.txt", "notes.txt", "folder"),
    ],
    "datasets/check.py": [("none.py", "none.py", "config/"), ("--sample 0", "--sample", "1")],
    "datasets/cvt_coco_object.py": [
        ("data -o made", "no raw masks", "stuffthingmaps"),
        ("stuff -o made", "(5, 5)", "size"),
    ],
    "tools/benchmark.py": [("--out figures.json --model ViT-Z", "'ViT-Z'", "list_models")],
    "tools/costs.py": [("nothing", "'nothing'", "growth"), ("text --repeats 0", "--repeats", "at least 1")],
    "tools/compare_with_release.py": [("none", "none", "github.com/mc-lan/ClearCLIP")],
    "tools/train_miniature.py": [
        ("--out notes.txt", "notes.txt", "folder"),
        ("--scenes 9", "--scenes", "at least 64"),
        ("--crops 80 20", "--crops", "the smaller one first"),
    ],
    "tools/tour.py": [("--fast", "--fast", "--help")],
    "tools/draw_miniature.py": [("--out notes.txt", "notes.txt", "folder")],
}  # fmt: skip
ALL = [pytest.param(script, *case, id=f"{script} {case[0][:200]}") for script, cases in CASES.items() for case in cases]


class _Harmful:
    """Unpickled by a careless loader, it leaves a folder behind."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_name: str) -> Path:
    """A folder of things that somebody might give to a command line, nearly all of them broken."""
    folder = tmp_path_factory.mktemp("bad")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "photo.png")
    (folder / "empty").mkdir()
    (folder / "other" / "journal").mkdir(parents=True)
    (folder / "other" / "journal" / "settings.json").write_text(json.dumps({"dataset": "another"}))
    names = (ROOT / "config" / "cls_voc21.txt").read_text()
    for name, text in {
        "notes.txt": "no image", "crash.py": "model = 1 / 0", "garbage.safetensors": "no weights",
        "no_model.py": "test_dataloader = dict(dataset=dict(data_root='data'))",
        "short.txt": names.rsplit("\n", 2)[0], "blank.txt": "\n" + names, "results.xlsx": "somebody's own workbook",
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    (folder / "latin.txt").write_bytes("Bäume\n".encode("latin-1"))
    whole = torch.load(Path(quick_name.removeprefix("local-dir:")) / "open_clip_pytorch_model.bin", weights_only=True)
    projection = whole.pop("visual.proj")
    torch.save(whole, folder / "few.pt")
    torch.save({**whole, "visual.proj": torch.full_like(projection, float("nan"))}, folder / "nan.pt")
    torch.save({**whole, "visual.proj": projection, "more": _Harmful()}, folder / "harmful.pt")
    _build_data(folder)
    return folder


def _build_data(folder: Path) -> None:
    """VOC, whole and with a fault each; COCO-Stuff with a mask of another size."""
    whole = make_layout("voc21", folder / "data", images=2)
    root = whole["data_root"]
    image, mask, names = (
        path.relative_to(root) for path in (whole["images"][0], whole["masks"][0], whole["list_file"])
    )
    faults = {name: Path(shutil.copytree(root, folder / "faults" / name))
              for name in ("no_list", "no_image", "mask_ids", "mask_text")}  # fmt: skip
    (faults["no_list"] / names).unlink()
    (faults["no_image"] / image).unlink()
    Image.fromarray(np.full_like(whole["raw"][0], 99)).save(faults["mask_ids"] / mask)
    (faults["mask_text"] / mask).write_text("no mask")
    for kind, size, suffix in (("images", (8, 6), "jpg"), ("annotations", (5, 5), "png")):
        (folder / "stuff" / kind / "val2017").mkdir(parents=True)
        Image.new("L", size).save(folder / "stuff" / kind / "val2017" / f"000000000139.{suffix}")


@pytest.fixture
def world(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the folder of broken things."""
    folder = Path(shutil.copytree(built, tmp_path / "world", symlinks=True))
    monkeypatch.chdir(folder)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GPUS", "NNODES", "NODE_RANK", "PORT", "CLEARCLIP_DATA"):
        monkeypatch.delenv(name, raising=False)
    return folder


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every path below ``folder`` with what it holds; None for folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def check(code: int, error: str, culprit: str, remedy: str) -> None:
    """Exit code 2 and one line that has both words; warnings and progress may stand before it."""
    assert code == 2, error
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in error, error
    assert error.rstrip().endswith(lines[0])
    assert culprit in lines[0]
    assert remedy in lines[0]
    assert len(lines[0]) < 1200


def run(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script in this process, which spares it the imports; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return stop.value.code


@pytest.mark.parametrize("script, arguments, culprit, remedy", ALL)
def test_one_line_and_nothing_written(script, arguments, culprit, remedy, world, quick_name, monkeypatch, capfd):
    before = contents(world)
    code = run(script, shlex.split(arguments.format(model=quick_name)), monkeypatch)
    check(code, capfd.readouterr().err, culprit, remedy)
    assert contents(world) == before


@pytest.mark.parametrize(
    "variables, arguments, culprit, remedy",
    [
        ({}, "", "no config", "config/cfg_voc21.py"),
        ({"GPUS": "two"}, "{voc}", "'two'", "whole number"),
        ({"GPUS": "1", "NNODES": "2"}, "{voc}", "NNODES=2", "PORT"),
        ({"GPUS": "1"}, "{voc} --data-root none", "none", "datasets/README.md"),
    ],
)
def test_processes(variables, arguments, culprit, remedy, world, monkeypatch):
    for name, value in {**variables, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    before = contents(world)
    command = f"bash {ROOT}/dist_test.sh {arguments.format(voc=ROOT / 'config' / 'cfg_voc21.py')}"
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    check(done.returncode, done.stderr, culprit, remedy)
    assert done.stdout == ""
    assert contents(world) == before


@pytest.mark.parametrize("script", CASES)
def test_help(script, world, monkeypatch, capfd):
    assert run(script, ["--help"], monkeypatch) == 0
    out, error = capfd.readouterr()
    assert out.startswith("usage: ") and error == ""
