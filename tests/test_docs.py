"""The pages say what the code does: every option, the published figures, links that lead somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from open_clip import get_pretrained_cfg

from clearclip import ModelSettings
from clearclip.backbones.blip.weights import BLIP_ADDRESS
from clearclip.commands.eval_parser import eval_parser
from clearclip.results.protocols import find_protocol, protocol_names
from clearclip.results.published_numbers import find_published
from clearclip.results.table_definitions import find_table
from clearclip.results.traps import traps
from clearclip.weights import CHECKPOINTS, OPEN_CLIP_FILES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def test_every_option_is_described():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    flags = {flag for action in eval_parser()._actions for flag in action.option_strings if flag.startswith("--")}
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


def cells_of(page: str, first: str) -> list[str]:
    """The cells of the line of a table that begins with a cell, without that one."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")[1:]]


def test_protocols_side_by_side():
    """Short side, windows, scale and thresholds of every protocol that can be run."""
    page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    names = [name.split(",")[0].strip("`") for name in cells_of(page, "`--protocol`")]
    for name, sides, windows, scales, thresholds in zip(
        names,
        cells_of(page, "short side"),
        cells_of(page, "window/stride"),
        cells_of(page, "scale before the softmax"),
        cells_of(page, "threshold, VOC21, Context60, Object"),
        strict=True,
    ):
        if name not in protocol_names():
            continue
        context = find_protocol(name, "context60")
        assert sides.startswith(str(context.scale[1]))
        for dataset, title in (("city_scapes", "Cityscapes"), ("ade20k", "ADE20K")):
            side = find_protocol(name, dataset).scale[1]
            assert (f"{title} {side}" in sides or f"{title} and ADE20K {side}" in sides) or side == context.scale[1]
        stated = [find_protocol(name, dataset).model for dataset in ("voc21", "context60", "coco_object")]
        if thresholds != "none":
            assert thresholds == ", ".join(f"{model['prob_thd']:g}" for model in stated)
            assert scales.startswith(f"{stated[1]['logit_scale']:g}")
        window = context.model
        assert windows.startswith(f"{window['slide_crop']}/{window['slide_stride']}")


def test_traps_with_their_published_sizes():
    page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    for trap in traps():
        if trap.miou is not None:
            assert f"{trap.miou:g}" in page and f"{trap.right_miou:g}" in page, trap
        repository = trap.source.partition(",")[0]
        if "/" in repository:
            assert repository.split("/")[1] in page, trap.source


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
    assert BLIP_ADDRESS + "model_large.pth" in rows["BLIP ViT-L/16", "model_large"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    lost = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert lost == []
