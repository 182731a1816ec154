"""Whether a config file is data, or a program that could change anything and leave no trace."""

from __future__ import annotations

import ast
from pathlib import Path

from mmengine.config import Config

#: Functions that a config may call and still be data.
_CALLED_BY_DATA = ("dict", "str")


def config_files(cfg: Config) -> list[Path]:
    """The file that a config was read from, and those that it inherits."""
    files = []
    pending = [Path(cfg.filename).resolve()] if cfg.filename else []
    while pending:
        path = pending.pop()
        files.append(path)
        # A config that inherits by Python's own import is a program, and its bases are looked at no further.
        if path.suffix == ".py" and "read_base" not in path.read_text(encoding="utf-8"):
            bases = Config._get_base_files(str(path))
            # A base of another package is named as "package::file"; packages are compared as a whole.
            pending += [(path.parent / base).resolve() for base in bases if "::" not in base]
    return files


def has_code(path: Path) -> bool:
    """Whether a config does more than to name values: it calls another function than dict or str, defines one, or
    imports what is not this package's.
    """
    if path.suffix != ".py":
        return False
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError:
        return True
    return not all(_is_data(node) for node in ast.walk(tree))


def _is_data(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "clearclip"
    if isinstance(node, ast.stmt):
        return isinstance(node, ast.Assign | ast.AugAssign | ast.Expr)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _CALLED_BY_DATA
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        # A name that may be called keeps its meaning.
        return node.id not in _CALLED_BY_DATA
    return not isinstance(node, ast.Lambda)
