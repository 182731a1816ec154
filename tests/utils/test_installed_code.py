"""Which program this is: versions, pip's record, and what was replaced in memory."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import shutil
import types
from pathlib import Path

import mmcv
import pytest

from clearclip import LastBlock
from clearclip.utils import installed_code
from clearclip.utils.installed_code import is_recorded, package_versions, recorded_files, source_digest


@pytest.fixture
def fresh():
    """What is kept for a process is computed anew, before and after."""
    kept = (installed_code.changed_packages, installed_code.recorded_files, installed_code.package_versions)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


def test_packages_are_as_pip_installed_them(fresh):
    assert installed_code.changed_packages() == ()
    assert {"torch", "numpy", "pillow", "scipy", "tokenizers"} <= package_versions().keys()
    assert mmcv.__file__ in recorded_files()


class FakeFile:
    """A line of pip's record, with the hash that pip would have written."""

    suffix = ".py"

    def __init__(self, path: Path, content: bytes):
        self.path = path
        text = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        self.hash = types.SimpleNamespace(mode="sha256", value=text)

    def locate(self) -> Path:
        return self.path


def test_an_edited_file_and_a_clone_are_noticed(fresh, tmp_path, monkeypatch):
    copied = Path(shutil.copy(mmcv.__file__, tmp_path / "copied.py"))
    content, files = copied.read_bytes(), importlib.metadata.files
    lines = {"mmcv-lite": [*files("mmcv-lite"), FakeFile(copied, content)]}
    monkeypatch.setattr(importlib.metadata, "files", lambda name: lines.get(name) or files(name))
    assert installed_code.changed_packages() == ()
    copied.write_bytes(content + b"\n# edited\n")
    installed_code.changed_packages.cache_clear()
    assert installed_code.changed_packages() == ("mmcv-lite",)
    lines["mmcv-lite"] = []  # installed from a clone, pip records no file
    fresh_functions = (installed_code.changed_packages, installed_code.recorded_files)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [] if name == "mmcv-lite" else files(name))
    for function in fresh_functions:
        function.cache_clear()
    assert "mmcv" in installed_code.changed_packages()


def test_classes_are_what_files_define():
    assert is_recorded(LastBlock) and is_recorded(mmcv.transforms.Resize)

    class Resize(mmcv.transforms.Resize):
        """By the same name."""

    Resize.__module__, Resize.__qualname__ = mmcv.transforms.Resize.__module__, "Resize"
    assert not is_recorded(Resize)
    assert not is_recorded(FakeFile)


def test_the_source_has_a_digest(tmp_path, monkeypatch):
    """A changed file, table or bundled config makes another; files that the user adds to the configs do not."""
    package = Path(
        shutil.copytree(installed_code.PACKAGE, tmp_path / "clearclip", ignore=shutil.ignore_patterns("*.png"))
    )
    configs = Path(shutil.copytree(installed_code.PACKAGE.parent / "config", tmp_path / "config"))
    monkeypatch.setattr(installed_code, "PACKAGE", package)

    def digest() -> str:
        source_digest.cache_clear()
        return source_digest()

    before = digest()
    (configs / "cfg_mine.py").write_text("mine = 1\n")
    (package / "notes.txt").write_text("mine\n")
    assert digest() == before
    for path in (configs / "cfg_voc20.py", package / "model.py", package / "results" / "protocols.csv"):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert digest() != before
        path.write_bytes(content)
    assert digest() == before
    shutil.move(configs, package / "config")  # as a wheel has it
    assert digest() == before
    source_digest.cache_clear()
