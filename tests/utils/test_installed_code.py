"""Which program this is: versions, pip's record, and what was replaced in memory."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import shutil
from pathlib import Path

import mmcv
import pytest
from edited_record import EditedRecord

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


def test_an_edited_file_and_a_clone_are_noticed(fresh, tmp_path, monkeypatch):
    copied = Path(shutil.copy(mmcv.__file__, tmp_path / "copied.py"))
    content = copied.read_bytes()
    distribution = importlib.metadata.distribution
    edited = EditedRecord(distribution("mmcv-lite"), lambda record: record + line)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda n: edited if n == "mmcv-lite" else distribution(n))
    # A line as pip writes it, of a file elsewhere.
    hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    place = os.path.relpath(copied, edited.locate_file(""))
    line = f"\n{place},sha256={hashed},{len(content)}\n"
    assert installed_code.changed_packages() == ()
    copied.write_bytes(content + b"\n# edited\n")
    installed_code.changed_packages.cache_clear()
    assert installed_code.changed_packages() == ("mmcv-lite",)
    copied.unlink()
    installed_code.changed_packages.cache_clear()
    assert installed_code.changed_packages() == ("mmcv-lite",)
    edited.change = lambda record: ""  # installed from a clone, pip records no file
    for function in (installed_code.changed_packages, installed_code.recorded_files):
        function.cache_clear()
    assert "mmcv" in installed_code.changed_packages()


def test_the_record_is_read_as_python_reads_it():
    """Every Python file of a package, by the paths and hashes of ``importlib.metadata``."""
    for name in ("timm", "mmengine"):
        files = [file for file in importlib.metadata.files(name) if file.suffix == ".py"]
        expected = {(str(file.locate()), f"{file.hash.mode}={file.hash.value}") for file in files}
        assert set(installed_code._recorded(importlib.metadata.distribution(name))) == expected


def test_classes_are_what_files_define():
    assert is_recorded(LastBlock) and is_recorded(mmcv.transforms.Resize)

    class Resize(mmcv.transforms.Resize):
        """By the same name."""

    Resize.__module__, Resize.__qualname__ = mmcv.transforms.Resize.__module__, "Resize"
    assert not is_recorded(Resize)
    assert not is_recorded(EditedRecord)


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
    results = package / "results"
    files = (configs / "cfg_voc20.py", package / "model.py", results / "protocols.csv", results / "tables.json")
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert digest() != before
        path.write_bytes(content)
    assert digest() == before
    shutil.move(configs, package / "config")  # as a wheel has it
    assert digest() == before
    source_digest.cache_clear()
