"""Random command lines of all scripts: whatever is given, the exit code is 0 or 2 (1 of a table), an error one line.

``CLEARCLIP_RANDOM_COMMANDS=2000 pytest tests/commands/test_main.py`` tries more of them.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip import UserError
from clearclip import model as model_module
from clearclip.commands.command_line import run_command
from clearclip.commands.main import parse_and_run, parser_of

ROOT = Path(__file__).resolve().parent.parent
COUNT = int(os.environ.get("CLEARCLIP_RANDOM_COMMANDS", "30"))
NUMBERS = ["0", "1", "2", "64", "32", "-1", "3.5", "0.3", "nan", "inf", "1e999", "9" * 30, "many", ""]
WORDS = [
    "sky, tree", "sky,hill | mountain,tree", "sky", "", ",", "|", "a|,b", "天空,草", "x" * 5000, "\udce9, b", "a\0b, c",
]  # fmt: skip
METHODS = [
    "SCLIP", "CLIP", "SCLIP + ClearCLIP", "Magic", "", "+", '{"type": "LastBlock", "alpha": 2}', '{"type": 1}', "{",
]  # fmt: skip
FILES = [
    "photo.png", "photos", "photos/*.png", "eps.jpg", "notes.txt", "empty", "none.png", "", "~", "~/none", ".",
    "/dev/null", "fifo", "x" * 400, "x" * 5000, "a\0b", "\udce9.png", "[a].png", "names.txt", "latin.txt", "crash.py",
    "photo.png/x",
]  # fmt: skip
SETTINGS = """
    model.prob_thd=2 model.prob_thd=0.2 model={} model=1 x =1 model.nothing=1 model.slide_crop=-1 test_dataloader=1
    test_dataloader.dataset.ann_file=none.txt test_dataloader.dataset.type=Nothing a.b.c=[1 test_dataloader.sampler=5
    test_dataloader.dataset.pipeline=[] test_dataloader.dataset.pipeline.0.type=Nothing env_cfg=3 log_level=no
    test_dataloader.dataset.metainfo={'classes':['a']} test_cfg.type=Nothing model.class_names=[a,b]
    custom_hooks=[{'type':'Nothing'}] test_evaluator={'type':'Nothing'} model.method={'type':'CLIP','x':1}
    test_dataloader.batch_size=0 model.name_path=latin.txt load_from=x model.logit_scale=1e999
""".split()  # noqa: SIM905 (a list of their own would be a page)
PLACES = ("config", "out", "imports", "name_path", "data_root", "pretrained", "work_dir", "results", "show_dir")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_name: str) -> str:
    """A folder of odd files, and the only model that can be loaded there."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("photos", "empty"):
        Path(folder).mkdir()
    for name in ("photo.png", "photos/b.png", "[a].png", os.fsdecode(b"\xe9.png")):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(name)
    Path("eps.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n")
    Path("notes.txt").write_text("no image")
    Path("names.txt").write_text("sky, clouds\ntree\n")
    Path("latin.txt").write_bytes("Bäume\n".encode("latin-1"))
    Path("crash.py").write_text("1 / 0")
    os.mkfifo("fifo")
    load, towers = model_module.load_towers, {}

    def load_once(settings, device, precision):
        if settings.model_name != quick_name or settings.pretrained is not None:
            raise UserError(f"{settings.model_name} is not here")
        if precision not in towers:
            towers[precision] = load(settings, device, precision)
        return towers[precision]

    monkeypatch.setattr(model_module, "load_towers", load_once)
    return quick_name


def draw(rng: random.Random, parser: argparse.ArgumentParser, model: str) -> list[str]:
    """Arguments, half of them such that they can be meant; options from the parser itself."""
    words = [
        rng.choice(FILES[:3]) if rng.random() < 0.9 else rng.choice(FILES) for _ in range(rng.choice((0, 1, 1, 2)))
    ]
    if rng.random() < 0.7:
        words += ["--model", model, "--classes", rng.choice(WORDS[:2]), "--limit", "2"]
        words = words if parser.prog == "analyze.py" else words[:-2]
    return [*words, *draw_options(rng, parser, model)]


def draw_options(rng: random.Random, parser: argparse.ArgumentParser, model: str) -> list[str]:
    words = []
    options = [
        one for one in parser._actions if one.option_strings and one.dest not in ("web", "help", "gpus", "limit")
    ]
    for action in rng.sample(options, rng.choice((0, 1, 1, 2, 4))):
        if action.dest in PLACES:
            values = FILES
        elif action.dest in ("compare", "methods", "model_type", "rows"):
            values = METHODS
        elif action.dest == "cfg_options":
            values = SETTINGS
        else:
            values = WORDS if action.dest == "classes" else [*NUMBERS, *map(str, action.choices or ()), "cpu", model]
        count = {0: 0, None: 1, "?": rng.randrange(2), "+": rng.randrange(1, 3), "*": rng.randrange(3)}[action.nargs]
        words += [rng.choice(action.option_strings), *(rng.choice(values) for _ in range(count))]
    return words


@pytest.mark.parametrize("script", ["demo", "analyze"])
def test_nothing_but_clear_errors(script, world: str, capfd: pytest.CaptureFixture) -> None:
    parser = parser_of(script)
    codes = []
    for seed in range(COUNT // 2):
        arguments = draw(random.Random(seed), parser, world)
        if script == "analyze" and "--config" not in arguments and not any(one in FILES for one in arguments[:1]):
            arguments = ["photo.png", *arguments]  # not the whole miniature
        try:
            codes.append(run_command(lambda arguments=arguments: parse_and_run(script, arguments)))
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {shlex.join(arguments)[:2000]}") from error
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert codes[-1] == (2 if said else 0) and max(map(len, said), default=0) < 7000, (seed, arguments)
    assert {0, 2} == set(codes)


@pytest.mark.parametrize("script", ["eval", "eval-all"])
def test_nothing_but_clear_errors_of_an_evaluation(script, world: str, capfd: pytest.CaptureFixture) -> None:
    config = ["--config", str(ROOT / "config" / "cfg_miniature.py"), "--workers", "0"]
    named = [f"model.model_name={world}", "model.clip_type=None", "model.vit_type=None"]
    codes = []
    for seed in range(COUNT // 2):
        rng, parser = random.Random(seed), parser_of(script)
        table = script == "eval-all"
        arguments = ["--limit", "1", "--device", "cpu", *(["--miniature"] if table else config)]
        arguments += ["--cfg-options", *([] if table else named), "model.cached=True"]
        arguments += draw_options(rng, parser, world)
        try:
            codes.append(run_command(lambda arguments=arguments: parse_and_run(script, arguments)))
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {shlex.join(arguments)[:2000]}") from error
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert codes[-1] == 2 if said else codes[-1] in (0, 1), (seed, arguments)
    assert {2} < set(codes)
