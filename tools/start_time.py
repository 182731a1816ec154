"""How long a process takes to a first result, beside that of another checkout: ``python tools/start_time.py first``.

"first" is a process that imports ``ClearCLIP`` and segments a scene of the miniature, "row" one that evaluates all 200
scenes by the command line, "help" one that prints the options. CPU seconds of a process and its children; the two
checkouts take turns, so that other work on the machine slows both, and medians and their ratio are shown:

    git worktree add ../before COMMIT
    python tools/start_time.py first --before ../before
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
FIRST_RESULT = """
from clearclip import ClearCLIP
from clearclip.miniature import BENCHMARK, CLASSES
model = ClearCLIP.from_pretrained("miniature", device="cpu")
model.segment(BENCHMARK / "images" / "val" / "0022.png", CLASSES).labels
"""


def command_of(what: str, folder: str) -> list[str]:
    """The command line of a process; what it writes goes to ``folder``."""
    if what == "first":
        return [sys.executable, "-c", FIRST_RESULT]
    if what == "help":
        return [sys.executable, "eval.py", "--help"]
    places = ["--workdir", f"{folder}/work", "--results", f"{folder}/results.xlsx"]
    return [sys.executable, "eval.py", "--config", "config/cfg_miniature.py", "--device", "cpu", *places]


def cpu_seconds(what: str, checkout: Path) -> float:
    """What one process of a checkout takes, its children included."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = command_of(what, folder)
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{checkout}: {what} fails ({done.stderr.strip().splitlines()[-1:]})")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure what is asked for."""
    parser = CommandParser(prog="start_time.py", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["first", "row", "help"])
    parser.add_argument("--before", type=Path, help="another checkout of this repository")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.repeats < 1:
        raise UserError("--repeats must be at least 1")
    checkouts = [ROOT]
    if args.before:
        if not (args.before / "eval.py").is_file():
            raise UserError(f"--before: {args.before} is no checkout of this repository")
        checkouts.insert(0, args.before.resolve())
    for what in args.what:
        seconds: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
        for _ in range(args.repeats):
            for checkout in checkouts:
                seconds[checkout].append(cpu_seconds(what, checkout))
        medians = [statistics.median(values) for values in seconds.values()]
        line = f"{what}: {' → '.join(f'{median:.2f}' for median in medians)} CPU seconds"
        if args.before:
            line += f", ratio {medians[1] / medians[0]:.3f}"
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
