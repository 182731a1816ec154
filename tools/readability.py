"""Measure how dense Python code is, from its syntax trees: ``python tools/readability.py clearclip [FILE ...]``.

Each argument is a file or a folder; folders are read whole. One column per argument, one line per measure.
The measures say where a reader may stumble. They are no goal in themselves: a vague name is not mended by another
vague name.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

#: Pronouns, participles and other names that say nothing alone.
VAGUE_NAMES = frozenset(
    """
    a aside before after both brief built changed closed content described done each every extra fit found given
    got had inner it kept kind kinds known later left listed lost made missing more most named near new odd old
    one ones other others out own pairs part parts place places plain rest said seen short shown single some such
    taken them there these they thing things this those together used wanted what which whole whose why wrong
    """.split()  # noqa: SIM905 (a list would take 90 lines)
)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
#: Comments that speak to tools, and those that are the docstring of a constant.
DIRECTIVES = ("# noqa", "# fmt", "# type:", "# pragma", "#:", "#!")
IMPORTS = (ast.Import, ast.ImportFrom)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def python_files(path: Path) -> list[Path]:
    """The Python files of a folder, or the file itself."""
    if path.is_file():
        return [path]
    return sorted(path.rglob("*.py"))


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that the code binds: assignments, loops, comprehensions, arguments, exceptions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg) and node.arg not in ("self", "cls"):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def module_names(tree: ast.Module) -> Iterator[str]:
    """The functions, classes and variables that a module defines at its top."""
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def code_lines(source: str) -> tuple[int, int]:
    """How many lines hold code (docstrings left out), and how many comments explain it (directives left out)."""
    lines: set[int] = set()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments += not token.string.startswith(DIRECTIVES)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if is_docstring(node):
            docstrings.update(range(node.lineno, node.end_lineno + 1))
    return len(lines - docstrings), comments


def is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a string alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def percentile(values: list[int], share: float) -> int:
    """The value below which this share of the sorted values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def measure(path: Path) -> dict[str, str]:
    """All measures of a file or folder, by their names."""
    total = lines = comments = comprehensions = conditionals = nodes = statements = bindings = vague = 0
    function_lengths: list[int] = []
    modules_by_name: dict[str, set[Path]] = defaultdict(set)
    for file in python_files(path):
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source)
        file_lines, file_comments = code_lines(source)
        total += len(source.splitlines())
        lines += file_lines
        comments += file_comments
        names = Counter(bound_names(tree))
        bindings += names.total()
        vague += sum(count for name, count in names.items() if name.lstrip("_") in VAGUE_NAMES)
        for name in module_names(tree):
            if not name.startswith("__"):
                modules_by_name[name].add(file)
        for node in ast.walk(tree):
            nodes += 1
            statements += isinstance(node, ast.stmt) and not (is_docstring(node) or isinstance(node, IMPORTS))
            comprehensions += isinstance(node, COMPREHENSIONS)
            conditionals += isinstance(node, ast.IfExp)
            if isinstance(node, FUNCTIONS):
                function_lengths.append(node.end_lineno - node.lineno + 1)
    shared = sorted(name for name, files in modules_by_name.items() if len(files) > 1)
    median = statistics.median(function_lengths) if function_lengths else 0
    return {
        "lines, of them code": f"{total} / {lines}",
        "vague names, % of bindings": f"{100 * vague / max(1, bindings):.1f}",
        "comments per 100 lines of code": f"{100 * comments / max(1, lines):.1f}",
        "comprehensions per 1,000 lines": f"{1000 * comprehensions / max(1, total):.0f}",
        "conditional expressions per 1,000 lines": f"{1000 * conditionals / max(1, total):.0f}",
        "syntax nodes per statement": f"{nodes / max(1, statements):.1f}",
        "names defined in several modules": f"{len(shared)} ({', '.join(shared)})" if shared else "0",
        "lines of a function, median / 90th percentile": f"{median:.0f} / {percentile(function_lengths, 0.9)}",
    }


def main() -> None:
    """Print the measures of every argument."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file or a folder of Python code")
    parser.add_argument("--names", action="store_true", help="also list the vague names of each file")
    arguments = parser.parse_args()
    columns = {path: measure(path) for path in arguments.paths}
    for name in next(iter(columns.values())):
        print(f"{name:46}", *(f"{column[name]:>14}" for column in columns.values()))
    if arguments.names:
        for file in (file for path in arguments.paths for file in python_files(path)):
            names = Counter(bound_names(ast.parse(file.read_text(encoding="utf-8"))))
            vague = {name: count for name, count in names.most_common() if name.lstrip("_") in VAGUE_NAMES}
            if vague:
                print(f"{file}: " + ", ".join(f"{name} {count}" for name, count in vague.items()))


if __name__ == "__main__":
    main()
