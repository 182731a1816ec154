"""Write down what a release is made of: clearclip/numerics.json (the digest of this source) and clearclip/
tested_versions.json (the versions of constraints.txt and requirements-onedl.txt).

    python tools/release_facts.py            # say what is stale
    python tools/release_facts.py --write    # bring both files up to date, before a release
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from clearclip.utils.installed_code import NUMERICS, TESTED_VERSIONS, source_digest

ROOT = Path(__file__).resolve().parents[1]
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


def main() -> int:
    """Compare, or write.

    Returns:
        1 where something is stale and nothing was written.
    """
    configs = sorted(path.name for path in (ROOT / "config").iterdir() if path.suffix in (".py", ".txt"))
    if configs != NUMERICS["configs"] and "--write" in sys.argv:
        NUMERICS["configs"][:] = configs
        source_digest.cache_clear()
    numerics = {**NUMERICS, "configs": configs, "released": sorted({*NUMERICS["released"], source_digest()})}
    stale = [
        name
        for name, recorded, current in (
            ("numerics.json", NUMERICS, numerics),
            ("tested_versions.json", TESTED_VERSIONS, tested_versions()),
        )
        if recorded != current
    ]
    print(f"source {source_digest()}, numerics {NUMERICS['numerics']}; stale: {', '.join(stale) or 'nothing'}")
    if "--write" not in sys.argv:
        return int(bool(stale))
    for name, content in (("numerics.json", numerics), ("tested_versions.json", tested_versions())):
        (ROOT / "clearclip" / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
