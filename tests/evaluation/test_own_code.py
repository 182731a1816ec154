"""A method of one's own is known by its files, what they import, and what is in memory."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from clearclip import METHODS, Method, UserError, build_method
from clearclip.commands.command_line import import_file
from clearclip.evaluation import code_files, prepared_run
from clearclip.evaluation.checked_dataset import CheckedDataset
from clearclip.evaluation.config import load_config
from clearclip.evaluation.own_code import own_classes, own_code_facts
from clearclip.evaluation.own_methods import is_own_method, nested_methods
from clearclip.evaluation.run import evaluate
from clearclip.evaluation.run_facts import method_facts
from clearclip.windows import POST_PROCESSINGS, PostProcessing

METHOD = """
from dataclasses import dataclass
from clearclip import METHODS, Method

@METHODS.register_module()
@dataclass(frozen=True)
class Mine(Method):
    def __call__(self, blocks, x, context{default}):
        {body}
        return x
"""


@pytest.fixture
def method_file(tmp_path):
    """A folder with a method, a file that it imports, one that it does not, and data."""
    (tmp_path / "factor_of_test.py").write_text("FACTOR = 1\n")
    (tmp_path / "beside.py").write_text("OTHER = 1\n")
    (tmp_path / "data.txt").write_text("1")
    yield tmp_path / "mine_of_test.py"
    METHODS.pop("Mine", None)
    sys.modules.pop("mine_of_test", None)


def facts(file, body="pass", default="") -> dict[str, Any]:
    METHODS.pop("Mine", None)
    sys.modules.pop(file.stem, None)
    file.write_text(METHOD.format(body=body, default=default))
    import_file(file)
    return method_facts(build_method("Mine"))


def test_its_own_file_and_those_below_its_folder(method_file, tmp_path):
    before = facts(method_file)
    assert before == facts(method_file)
    assert facts(method_file, "return 2 * x") != before
    assert facts(method_file, default=", factor=2") != before
    for name in ("factor_of_test.py", "beside.py"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "CHANGED = 2\n")
        assert facts(method_file) != before
        (tmp_path / name).write_text(text)
    assert facts(method_file) == before
    (tmp_path / "data.txt").write_text("2")
    assert facts(method_file) == before, "what cannot be seen, as docs/your_own_method.md says"


INTERRUPTED_METHOD = """
import os, sys
from dataclasses import dataclass
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from clearclip import METHODS, Method
from factor_of_test import FACTOR

def scaled(x, by=1.0):
    return by * x

@METHODS.register_module()
@dataclass(frozen=True)
class Mine(Method):
    def __call__(self, blocks, x, context):
        shift = float(Path(__file__).with_name("data.txt").read_text()) + float(os.environ["SHIFT_OF_TEST"])
        return FACTOR * scaled(x) + shift
"""


class Interrupted(prepared_run.ProgressHook):
    """Ends a run after its first batch, as a signal would."""

    def after_test_iter(self, *arguments, **options):
        raise KeyboardInterrupt


def other_factor(folder):
    (folder / "factor_of_test.py").write_text("FACTOR = 2\n")


def other_default(folder):
    file = folder / "mine_of_test.py"
    file.write_text(file.read_text().replace("by=1.0", "by=3.0"))


def other_data(folder):
    (folder / "data.txt").write_text("2")


def other_variable(folder):
    os.environ["SHIFT_OF_TEST"] = "2"


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (other_factor, r"--resume: the settings differ \(.*file factor_of_test.py was"),
        (other_default, r"--resume: the settings differ \(.*file mine_of_test.py was"),
        (other_data, None),
        (other_variable, None),
    ],
)
def test_a_run_that_was_stopped_and_changed(change, refusal, method_file, tmp_path, monkeypatch, capsys):
    """What is seen is refused; what cannot be seen is said, and a result of it is never skipped in silence."""
    monkeypatch.setenv("SHIFT_OF_TEST", "1")
    method_file.write_text(INTERRUPTED_METHOD)
    options = dict(methods=["Mine"], imports=[method_file], limit=3, batch_size=1, workers=0, device="cpu")

    def evaluate_in_a_new_process(**further):
        METHODS.pop("Mine", None)
        for name in ("mine_of_test", "factor_of_test"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        import_file(method_file)
        return evaluate("cfg_miniature.py", tmp_path / "work", **options, **further)

    with monkeypatch.context() as patch:
        patch.setattr(prepared_run, "ProgressHook", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate_in_a_new_process()
    change(tmp_path)
    capsys.readouterr()
    if refusal:
        with pytest.raises(UserError, match=refusal):
            evaluate_in_a_new_process(resume="yes")
    else:
        assert len(evaluate_in_a_new_process(resume="yes")) == 1
        assert "Mine: its files are the same; what else it reads is not compared" in capsys.readouterr().out


def test_a_file_elsewhere_that_a_function_imports(method_file, tmp_path, monkeypatch):
    elsewhere = tmp_path.parent / f"{tmp_path.name}_elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far_of_test.py").write_text("FACTOR = 1\n")
    monkeypatch.syspath_prepend(elsewhere)
    before = facts(method_file, "from far_of_test import FACTOR")
    (elsewhere / "far_of_test.py").write_text("FACTOR = 2\n")
    assert facts(method_file, "from far_of_test import FACTOR") != before


@pytest.mark.parametrize(
    ("line", "changed_file"),
    [
        ("from ..constants import FACTOR", "constants.py"),
        ("from .. import constants", "constants.py"),
        ("from ..deep.far import FACTOR", "deep/far.py"),
        ("from package_of_test import constants", "constants.py"),
        ("import package_of_test.deep.far", "deep/far.py"),
    ],
)
def test_files_of_a_package_above_the_method(line, changed_file, tmp_path, monkeypatch):
    """Whatever the way in which they are imported, inside functions as well."""
    package = tmp_path / "package_of_test"
    for folder in ("methods", "deep"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    for name in ("constants.py", "deep/far.py"):
        (package / name).write_text("FACTOR = 1\n")
    method = package / "methods" / "mine.py"
    method.write_text(f"def compute():\n    {line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = own_code_facts([], [method])
    (package / changed_file).write_text("FACTOR = 2\n")
    assert own_code_facts([], [method]) != before


def test_a_post_processing_that_was_typed_in(monkeypatch):
    """Its code counts, though no file is imported."""

    def facts_of(number):
        names: dict[str, Any] = {"dataclass": dataclass, "PostProcessing": PostProcessing, "__name__": "typed"}
        exec(f"@dataclass(frozen=True)\nclass Typed(PostProcessing):\n    def __call__(self): return {number}", names)
        monkeypatch.setitem(POST_PROCESSINGS, "typed", names["Typed"])
        cfg = load_config("cfg_miniature.py")
        cfg.model.post = "typed"
        return own_code_facts(own_classes(cfg, CheckedDataset(cfg.test_dataloader.dataset, 1)))

    assert facts_of(1) == facts_of(1) != facts_of(2)


def test_a_file_that_is_edited_after_its_import(method_file):
    before = facts(method_file)
    method_file.write_text(METHOD.format(body="return 3 * x", default=""))
    edited = method_facts(build_method("Mine"))
    assert edited != before
    assert edited != facts(method_file, "return 3 * x"), "what is in memory is the earlier file"


def test_code_that_was_typed_in():
    typed = []
    for number in (1, 1, 2):
        names: dict[str, Any] = {"dataclass": dataclass, "Method": Method}
        exec(f"@dataclass(frozen=True)\nclass Typed(Method):\n    def __call__(self): return {number}", names)
        typed.append(own_code_facts([names["Typed"]]))
    assert typed[0] == typed[1] != typed[2]


def test_a_method_in_any_option():
    @dataclass(frozen=True)
    class Outer(Method):
        inner: Any = None
        several: Any = field(default_factory=list)

    own = Outer(several=[{"a": Outer(inner=build_method("NACLIP"))}])
    assert [type(part).__name__ for part in nested_methods(own)] == ["Outer", "Outer", "NACLIP"]
    assert is_own_method(own)
    for name in ("ClearCLIP", "NACLIP + RCS + SFR", "PEARL", "SC-CLIP", "GEM"):
        assert not is_own_method(build_method(name))


def test_functions_as_options_are_known_by_what_they_do():
    @dataclass(frozen=True)
    class WithFunction(Method):
        function: Any = None

    double, triple = eval("lambda x: 2 * x"), eval("lambda x: 3 * x")
    cached = functools.lru_cache(double)
    facts_of = {name: method_facts(WithFunction(function)) for name, function in
                {"double": double, "again": eval("lambda x: 2 * x"), "triple": triple, "cached": cached,
                 "partial": functools.partial(double, 1), "other": functools.partial(double, 2)}.items()}  # fmt: skip
    without_label = {name: {**facts, "label": ""} for name, facts in facts_of.items()}
    assert without_label["double"] == without_label["again"] == without_label["cached"]
    assert without_label["double"] != without_label["triple"]
    assert without_label["partial"] != without_label["other"]
    assert " at 0x" not in str(facts_of)


def test_a_folder_with_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(code_files, "MOST_FILES", 3)
    for number in range(5):
        (tmp_path / f"file{number}.py").touch()
    with pytest.raises(UserError, match="more than 3 Python files"):
        own_code_facts([], [tmp_path / "file0.py"])
