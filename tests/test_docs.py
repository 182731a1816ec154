"""The pages say what the code does: every option, the published figures, links that lead somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from open_clip import get_pretrained_cfg

from clearclip import ModelSettings
from clearclip.backbones.blip.weights import PUBLISHED
from clearclip.commands.eval import make_parser
from clearclip.results.published_numbers import find_published
from clearclip.results.table_definitions import find_table
from clearclip.weights import CHECKPOINTS, OPEN_CLIP_FILES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def test_every_option_is_described():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    flags = {flag for action in make_parser()._actions for flag in action.option_strings if flag.startswith("--")}
    names = [*(one.name for one in fields(ModelSettings)), *(flags - {"--help", "--config", "--work-dir"})]
    assert [name for name in names if not re.search(rf"`[^`\n]*{name}\b", page)] == []


def test_published_figures():
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    table = find_table("2")
    for vit, part in zip(("ViT-B/16", "ViT-L/14"), page.split("| ViT-")[1:], strict=True):
        lines = dict(line.strip("| *").split(" | ", 1) for line in part.splitlines() if re.match(r"\| \w.*\d", line))
        for row in table.select_rows(sizes=[vit]):
            shown = [float(cell.strip(" *|")) for cell in lines[row.system].split(" | ")]
            columns = (*table.datasets, "average")
            assert shown == [find_published(table, row, name, "clearclip").miou for name in columns]


def test_weights_are_where_open_clip_has_them():
    """Name, tag, activation and addresses of every CLIP in the table."""
    rows = {}
    for line in (ROOT / "docs" / "weights.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            rows[tuple(re.findall(r"`([^`]+)`", line.split(" | ")[1]))] = line
    for (clip_type, vit_type), (name, tag) in CHECKPOINTS.items():
        if tag is None:  # bundled
            continue
        line = rows[name, tag]
        assert f"`{clip_type}`" in line and f"`{vit_type}`" in line
        if cfg := get_pretrained_cfg(name, tag):
            assert f"| {'QuickGELU' if cfg.get('quick_gelu') else 'GELU'} |" in line
            repository = cfg["hf_hub"].rstrip("/")
            assert f"[{repository}](https://huggingface.co/{repository}/resolve/main/{OPEN_CLIP_FILES[0]})" in line
            url = cfg["url"]
            assert (f"[{url.rpartition('/')[2]}]({url})" if url else "| – |") in line
    assert PUBLISHED + "model_large.pth" in rows["BLIP ViT-L/16", "model_large"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    lost = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert lost == []
