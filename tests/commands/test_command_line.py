"""What all command lines share, before and after something goes wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from clearclip import UserError
from clearclip.commands import main as command
from clearclip.commands.command_line import REQUIRED_MODULES, run_command

ROOT = Path(__file__).resolve().parents[2]


def fail(error: BaseException):
    def main() -> None:
        raise error

    return main


def test_what_is_not_installed_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert run_command(fail(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"))) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: torch.nn is not installed for ") and "pip install -c constraints.txt -e ." in line
    with pytest.raises(ModuleNotFoundError):
        run_command(fail(ModuleNotFoundError("No module named 'mine'", name="mine")))


def test_every_requirement_is_known() -> None:
    installed = packages_distributions()
    names_by_module = {
        module: {name.lower().replace("_", "-") for name in names} for module, names in installed.items()
    }
    known = set().union(*(names_by_module.get(module, set()) for module in REQUIRED_MODULES))
    required = re.findall(r"^([\w-]+)", (ROOT / "requirements.txt").read_text(), flags=re.M)
    assert {name.lower().replace("_", "-") for name in required} <= known | {"mmcv-lite"}


def test_before_installing() -> None:
    """A Python without any package: help, and one line that says what to do."""
    blocked = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; sys.path.insert(0, '.');"
    run = f"{blocked} import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    for script in ("demo.py", "eval.py", "eval_all.py", "analyze.py"):
        arguments = ["--config", "config/cfg_voc20.py"] if script == "eval.py" else []
        line = [sys.executable, "-S", "-c", run, script, *arguments]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and re.match(r"error: \w+ is not installed for .*\n\Z", done.stderr), done.stderr


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "clearclip", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("clearclip ")


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_subcommand_has_its_modules(name: str) -> None:
    module = ROOT / "clearclip" / "commands" / f"{command.COMMANDS[name]}"
    assert module.with_suffix(".py").is_file() and Path(f"{module}_parser.py").is_file()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--modle x", "unrecognized arguments: --modle x; did you mean --model?"),
        ("--wholly-different", "unrecognized arguments: --wholly-different; see"),
    ],
)
def test_a_misspelled_option_is_answered_with_the_one_that_was_meant(typed, message):
    from clearclip.commands.demo_parser import demo_parser

    with pytest.raises(UserError) as error:
        demo_parser().parse_args(["photo.jpg", *typed.split()])
    assert str(error.value).startswith(message)
