"""What changes are worth in time: this checkout beside another one.

    git worktree add ../before COMMIT
    python tools/before_after.py help first row fp32 labels pamr counts --before ../before

- help: a process that prints the options of ``eval.py``;
- first: a process that imports ``ClearCLIP`` and segments one scene of the miniature;
- row: a process that evaluates all 200 scenes by the command line;
- fp32: ``segment()`` of a photograph of 480×640 by ViT-B/16 with random weights and 21 words;
- labels: what 1,000 words take more than two, of a picture of 1,024×2,048 by the miniature;
- pamr, pamr-large: what ``post="pamr"`` adds for 171 words at 480×640 and at 1,024×2,048;
- counts: confusion counts of 2,097,152 pixels and 21 classes.

CPU seconds with one thread, of a process and its children, or of the part that a process measures. The two checkouts
take turns, so that other work on the machine slows both; medians and their ratio are shown.
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
#: What the measuring programs below share: a smooth picture, and the least CPU time of some repetitions.
SHARED = """
import time
from clearclip import ClearCLIP
import cv2
import numpy as np
import torch

def photograph(height, width):
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

def seconds(compute, repeats=3):
    compute()  # words are encoded, and caches filled
    times = []
    for _ in range(repeats):
        started = time.process_time()
        compute()
        times.append(time.process_time() - started)
    return min(times)

def words(count):
    return [f"thing {number}" for number in range(count)]

def miniature(**options):
    return ClearCLIP.from_pretrained("miniature", device="cpu", short_side=None, long_side=4096, **options)
"""
PAMR = """
picture, plain, refined = photograph({height}, {width}), miniature(), miniature(post="pamr")
without = seconds(lambda: plain.segment(picture, words(171)).labels)
print(seconds(lambda: refined.segment(picture, words(171)).labels) - without)
"""
#: Programs that print the seconds of a part of what they do.
PROGRAMS = {
    "fp32": """
torch.manual_seed(0)
model = ClearCLIP.from_pretrained("ViT-B-16", "random", device="cpu", quick_gelu=True)
print(seconds(lambda: model.segment(photograph(480, 640), words(21)).labels))
""",
    "labels": """
picture, model = photograph(1024, 2048), miniature()
few = seconds(lambda: model.segment(picture, words(2)).labels)
print(seconds(lambda: model.segment(picture, words(1000)).labels) - few)
""",
    "pamr": PAMR.format(height=480, width=640),
    "pamr-large": PAMR.format(height=1024, width=2048),
    "counts": """
try:
    from clearclip.evaluation.confusion import confusion_counts
except ImportError:
    from clearclip.evaluation.metric import confusion_counts
truth, labels = torch.randint(0, 21, (2, 1024, 2048), generator=torch.Generator().manual_seed(0))
truth = truth.to(torch.uint8)
print(seconds(lambda: confusion_counts(truth, labels, 21), repeats=9))
""",
}
#: All that can be measured: whole processes first.
KINDS = ("help", "first", "row", *PROGRAMS)


def cpu_seconds(kind: str, checkout: Path) -> float:
    """What one process of a checkout takes, or the part of it that it measures itself."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = command_of(kind, folder)
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{checkout}: {kind} fails ({' '.join(done.stderr.strip().splitlines()[-1:])})")
    if kind in PROGRAMS:
        return float(done.stdout.splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command_of(kind: str, folder: str) -> list[str]:
    """The command line of a process; what it writes goes to ``folder``."""
    if kind in PROGRAMS:
        return [sys.executable, "-c", SHARED + PROGRAMS[kind]]
    if kind == "first":
        return [sys.executable, "-c", FIRST_RESULT]
    if kind == "help":
        return [sys.executable, "eval.py", "--help"]
    places = ["--workdir", f"{folder}/work", "--results", f"{folder}/results.xlsx"]
    return [sys.executable, "eval.py", "--config", "config/cfg_miniature.py", "--device", "cpu", *places]


def main() -> int:
    """Measure what is asked for."""
    parser = CommandParser(prog="before_after.py", description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--before", type=Path, help="another checkout of this repository")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each (default 5)")
    args = parser.parse_args()
    if args.repeats < 1:
        raise UserError("--repeats must be at least 1")
    checkouts = [ROOT]
    if args.before:
        if not (args.before / "eval.py").is_file():
            raise UserError(f"--before: {args.before} is no checkout of this repository")
        checkouts.insert(0, args.before.resolve())
    for kind in args.kinds:
        seconds: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
        for _ in range(args.repeats):
            for checkout in checkouts:
                seconds[checkout].append(cpu_seconds(kind, checkout))
        medians = [statistics.median(values) for values in seconds.values()]
        line = f"{kind}: {' → '.join(f'{median:.3g}' for median in medians)} CPU seconds"
        if args.before:
            line += f", ratio {medians[1] / medians[0]:.3f}"
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
