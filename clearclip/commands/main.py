"""The command ``clearclip``: the repository's four scripts by one name, wherever a wheel was installed."""

from __future__ import annotations

import sys
from importlib import import_module

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.version import __version__

#: The subcommands and their modules.
COMMANDS = {"demo": "demo", "eval": "eval", "eval-all": "eval_all", "analyze": "analyze"}


def main() -> int:
    """Run the subcommand that the command line names."""
    return run_command(_run)


def _run() -> int | None:
    parser = CommandParser(prog="clearclip", description=__doc__, epilog="clearclip COMMAND --help tells the options.")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--version", action="version", version=f"clearclip {__version__}")
    command = parser.parse_args(sys.argv[1:2]).command
    # Imported late, so that help is quick and a missing package is reported in one line.
    run = import_module(f"clearclip.commands.{COMMANDS[command]}").main
    sys.argv[:2] = [f"clearclip {command}"]
    return run()
