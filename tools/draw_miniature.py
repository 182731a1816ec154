"""Draw the miniature's benchmark again: 200 images and masks in the layout of an MMSegmentation dataset.

    python tools/draw_miniature.py [--out DIR] [--set benchmark|validation]

Images go to DIR/images/val/0000.png and so on, masks (class ids 0..13, palette PNG) to DIR/annotations/val.
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from PIL import Image
from scenes import BENCHMARK_SEEDS, VALIDATION_SEEDS, draw_scene

from clearclip.commands.command_line import CommandParser, run_command
from clearclip.miniature import BENCHMARK, PALETTE
from clearclip.utils.files import check_folder, write_atomically

SETS = {"benchmark": BENCHMARK_SEEDS, "validation": VALIDATION_SEEDS}


def draw_benchmark(directory: Path, seeds: range) -> int:
    """Draw the scenes of ``seeds`` into ``directory``; returns the bytes written."""
    total = 0
    for number, seed in enumerate(seeds):
        scene = draw_scene(seed)
        mask = Image.fromarray(scene.labels, mode="P")
        mask.putpalette([value for colour in PALETTE for value in colour])
        for folder, image in (("images", Image.fromarray(scene.image)), ("annotations", mask)):
            path = directory / folder / "val" / f"{number:04d}.png"
            write_atomically(path, lambda part, image=image: image.save(part, optimize=True))
            total += path.stat().st_size
    return total


def main() -> None:
    """Parse the arguments and draw."""
    parser = CommandParser(prog="draw_miniature.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BENCHMARK, help="folder to write (default: the bundled one)")
    parser.add_argument("--set", choices=SETS, default="benchmark", help="which seeds to draw")
    arguments = parser.parse_args()
    check_folder("--out", arguments.out)
    total = draw_benchmark(arguments.out, SETS[arguments.set])
    print(f"{len(SETS[arguments.set])} scenes, {total / 1e6:.2f} MB, in {arguments.out}")


if __name__ == "__main__":
    sys.exit(run_command(main))
