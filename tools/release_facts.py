"""Write down what a release is made of.

python tools/release_facts.py            # say what is stale
python tools/release_facts.py --write    # before a release: clearclip/numerics.json (the digest of this source) and
                                         # clearclip/tested_versions.json (of the two files of requirements)
python tools/release_facts.py --record   # after "numerics" was raised: tests/release/numerics.npz, the confusion
                                         # matrices of the miniature's first scenes by every method
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from clearclip.utils.installed_code import NUMERICS, source_digest

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "release" / "numerics.npz"
#: Scenes of the miniature whose confusion matrices are recorded.
SCENES = 12
#: What a number depends on. Builds of OpenCV hold the same code under four names.
PACKAGES = (
    "torch", "torchvision", "open-clip-torch", "timm", "transformers", "tokenizers", "safetensors", "numpy", "scipy",
    "pillow", "ftfy", "regex", "mmengine", "mmcv-lite", "mmsegmentation", "opencv-python",
)  # fmt: skip
SAME_CODE = {
    "mmcv-lite": ["mmcv"],
    "opencv-python": ["opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"],
}


def tested_versions() -> dict[str, list[str]]:
    """The versions of each package in the two files of requirements."""
    versions: dict[str, list[str]] = {}
    for file, sign in (("constraints.txt", "=="), ("requirements-onedl.txt", ">=")):
        for name, version in re.findall(rf"^([\w-]+){sign}([\w.]+)", (ROOT / file).read_text(), re.MULTILINE):
            if name in PACKAGES or name.startswith("onedl-"):
                for package in (name, *SAME_CODE.get(name, ())):
                    versions.setdefault(package.replace("open-clip-torch", "open_clip_torch"), []).append(version)
    return versions


def bundled_configs() -> list[str]:
    """The files of the folder of configs that belong to a source."""
    return sorted(path.name for path in (ROOT / "config").iterdir() if path.suffix in (".py", ".txt"))


def confusion_by_method() -> dict[str, np.ndarray]:
    """The (classes, classes) confusion matrix of the first scenes by every row of the tables, computed in one pass."""
    from clearclip.evaluation.run import evaluate
    from clearclip.results.table_definitions import every_table

    names = {row.method for table in every_table() if not table.is_published for row in table.rows}
    with tempfile.TemporaryDirectory() as folder:
        options = {"methods": sorted(names), "limit": SCENES, "device": "cpu", "workers": 0}
        evaluations = evaluate("cfg_miniature.py", folder, **options)
    return {evaluation.method: evaluation.scores.confusion for evaluation in evaluations}


def main() -> int:
    """Compare, write or record.

    Returns:
        1 where something is stale and nothing was written.
    """
    if "--record" in sys.argv:
        np.savez_compressed(RECORDED, **confusion_by_method(), numerics=NUMERICS["numerics"])
        return 0
    if "--write" in sys.argv:
        # The list is itself a part of what is hashed.
        NUMERICS["configs"] = bundled_configs()
        source_digest.cache_clear()
    released = sorted({*NUMERICS["released"], source_digest()})
    facts_by_file = {
        "numerics.json": {**NUMERICS, "configs": bundled_configs(), "released": released},
        "tested_versions.json": tested_versions(),
    }
    stale = []
    for name, facts in facts_by_file.items():
        path = ROOT / "clearclip" / name
        if json.loads(path.read_text(encoding="utf-8")) != facts:
            stale.append(name)
            if "--write" in sys.argv:
                path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"source {source_digest()}, numerics {NUMERICS['numerics']}; stale: {', '.join(stale) or 'nothing'}")
    return int(bool(stale) and "--write" not in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
