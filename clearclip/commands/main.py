"""The command ``clearclip``: the repository's scripts by one name, wherever a wheel was installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.version import __version__

#: The subcommands and their modules. The options of each are in a module of their own, which is quick to import.
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
    return run_command(lambda: _parse_and_run(command, sys.argv[1:]))


def _run_subcommand() -> int | None:
    parser = CommandParser(prog="clearclip", description=__doc__, epilog="clearclip COMMAND --help tells the options.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--version", action="version", version=f"clearclip {__version__}")
    command = parser.parse_args(sys.argv[1:2]).command
    sys.argv[:2] = [f"clearclip {command}"]
    return _parse_and_run(command, sys.argv[1:])


def _parse_and_run(command: str, arguments: Sequence[str]) -> int | None:
    module = f"clearclip.commands.{COMMANDS[command]}"
    args = import_module(f"{module}_parser").make_parser().parse_args(arguments)
    # Only now what takes seconds: PyTorch and all that is built on it. A package that is missing is one line here, too.
    return import_module(module).run(args)
