"""Every evaluation's row: kept in JSON lines, which is the source, and shown in a workbook made from it."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from clearclip.evaluation.scores import Evaluation
from clearclip.results.workbook import write_workbook
from clearclip.utils.errors import UserError
from clearclip.version import __version__


def rows_path(results: str | Path) -> Path:
    """The JSON-lines file beside a workbook."""
    return Path(results).with_suffix(".jsonl")


def check_results_path(results: str | Path) -> Path:
    """``results`` as a path.

    Raises:
        UserError: it is no place for a workbook.
    """
    path = Path(results)
    if path.suffix.lower() != ".xlsx":
        raise UserError(f"results file {path} must end in .xlsx")
    if path.is_dir():
        raise UserError(f"results file {path} is a folder; give a file name that ends in .xlsx")
    if path.parent.exists() and not path.parent.is_dir():
        raise UserError(f"results file {path}: {path.parent} is no folder")
    return path


def read_rows(results: str | Path) -> list[dict[str, Any]]:
    """The rows kept beside a workbook, oldest first. A line cut short by a kill is left out."""
    path = rows_path(results)
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            row["settings"], row["mIoU"], row["dataset"]
        except (ValueError, KeyError, TypeError):
            warnings.warn(f"{path}: line {number} is damaged and was left out", stacklevel=2)
            continue
        rows.append(row)
    return rows


def make_row(evaluation: Evaluation) -> dict[str, Any]:
    """The row of an evaluation, as plain data."""
    settings = evaluation.settings
    scores = evaluation.scores
    return {
        "time": evaluation.started,
        "CLIP": settings["model_name"] or settings["clip_type"],
        "VIT": "" if settings["model_name"] else settings["vit_type"],
        "method": evaluation.method.label,
        "dataset": evaluation.dataset,
        "images": evaluation.images,
        "skipped": len(evaluation.failures),
        **{name: round(value, 4) for name, value in scores.summary.items()},
        "seconds": round(evaluation.seconds, 1),
        "images/s": round(evaluation.images_per_second, 2),
        "settings": settings,
        "version": __version__,
        "commit": current_commit(),
        "per_class": {
            name: None if iou != iou else round(float(iou), 4)
            for name, iou in zip(evaluation.classes, scores.iou, strict=True)
        },
    }


def current_commit() -> str:
    """The commit that this code runs from, with "+" where files differ from it; empty outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip() if described.returncode == 0 else ""


def record(found: Sequence[Evaluation], results: str | Path, root: Path) -> list[dict[str, Any]]:
    """Keep the rows of evaluations, all or none, and rebuild the workbook. Two processes may do this at once.

    Args:
        found: of one pass.
        results: the workbook.
        root: the folder that has ``config/``, by which published and other settings are told apart.

    Returns:
        The rows.
    """
    results = check_results_path(results)
    rows = [make_row(evaluation) for evaluation in found]
    results.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{results}.lock"):
        _keep_foreign(results)
        _append(rows_path(results), rows)
        rebuild(results, root)
    return rows


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        torn = False
        if size:
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.write(("\n" if torn else "").encode() + lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _keep_foreign(results: Path) -> None:
    """A workbook without rows beside it is somebody's own: keep it under another name."""
    if results.exists() and not rows_path(results).exists():
        kept = results.with_name(f"{results.stem}.before.xlsx")
        warnings.warn(f"{results} has no {rows_path(results).name} beside it; it is kept as {kept}", stacklevel=3)
        results.replace(kept)


def rebuild(results: str | Path, root: Path) -> bool:
    """Write the workbook again from the rows. A workbook that cannot be written costs no result.

    Returns:
        Whether it was written.
    """
    results = Path(results)
    try:
        if results.exists() and not results.stat().st_mode & 0o222:
            raise PermissionError("it is read-only")
        write_workbook(read_rows(results), results, root)
    except OSError as error:
        warnings.warn(
            f"{results} was not written ({error}); the rows are safe in {rows_path(results)}, and the next run, or "
            f"python eval_all.py --rebuild, makes the workbook from them",
            stacklevel=2,
        )
        return False
    return True
