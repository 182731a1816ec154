"""The command ``clearclip``: the repository's scripts by one name, wherever a wheel was installed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.utils.collector_pause import collector_paused
from clearclip.version import __version__

#: The subcommands and their modules: ``NAME_parser`` with the options, which is quick to import, and ``NAME``, whose
#: function ``run_NAME`` does the work.
COMMANDS = {
    "demo": "demo",
    "eval": "eval",
    "eval-all": "eval_all",
    "analyze": "analyze",
    "check": "check_data",
    "convert-coco-object": "convert_coco_object",
    "export": "export",
}


def main() -> int:
    """Run the subcommand that the command line names."""
    return run_command(_run_subcommand)


def run_script(command: str) -> int:
    """Run one of the scripts: the command line's own arguments, the exit code back.

    Args:
        command: a key of :data:`COMMANDS`.
    """
    return run_command(lambda: parse_and_run(command, sys.argv[1:]))


def parser_of(command: str) -> CommandParser:
    """The options of a subcommand.

    Args:
        command: a key of :data:`COMMANDS`.
    """
    name = f"{COMMANDS[command]}_parser"
    return getattr(import_module(f"clearclip.commands.{name}"), name)()


def _run_subcommand() -> int | None:
    parser = CommandParser(prog="clearclip", description=__doc__, epilog="clearclip COMMAND --help tells the options.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--version", action="version", version=f"clearclip {__version__}")
    command = parser.parse_args(sys.argv[1:2]).command
    sys.argv[:2] = [f"clearclip {command}"]
    return parse_and_run(command, sys.argv[1:])


def parse_and_run(command: str, arguments: Sequence[str]) -> int | None:
    name = COMMANDS[command]
    args = parser_of(command).parse_args(arguments)
    # Only now what takes seconds: PyTorch and all that is built on it. A package that is missing is one line here, too.
    with collector_paused():
        module = import_module(f"clearclip.commands.{name}")
    # What was imported stays: collections leave it alone from now on, MMEngine's own for each dataset among them.
    gc.freeze()
    return getattr(module, f"run_{name}")(args)
