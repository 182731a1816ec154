"""Command lines answer at once: nothing beyond Python itself is loaded before their arguments have been read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clearclip.commands.known_names import HEAT_MAP_SCALE_NAMES, LAUNCHER_NAMES, METHOD_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
#: Runs a script as Python would, and prints which packages it has loaded that Python does not come with.
DRIVER = """
import runpy, sys
before = set(sys.modules)
sys.argv = sys.argv[1:]
try:
    if sys.argv[0] == "clearclip":
        from clearclip.commands.main import main
        sys.exit(main())
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print("code", code, "loaded", *sorted(loaded - set(sys.stdlib_module_names) - {"clearclip"}))
"""
#: Each command line, and a misspelled option of it.
SCRIPTS = {
    "eval.py": "--config x --mehtods CLIP",
    "eval_all.py": "--tabel 2",
    "demo.py": "photo.jpg --clases sky",
    "analyze.py": "--onyl maps",
    "datasets/check.py": "--fulll",
    "datasets/cvt_coco_object.py": "somewhere -o elsewhere --spilt val",
    "clearclip": "evla",
    "clearclip eval": "--import missing.py --cfg-options model.prob_thd=0.1 model.slide_crop=[1,2] --mehtods CLIP",
    "clearclip eval-all": "--protocl pearl",
    "clearclip demo": "--model-tipe SCLIP",
    "clearclip analyze": "--model-tipe SCLIP",
    "clearclip check": "--fulll",
}


def answer(words: list[str]) -> tuple[int, str, str]:
    """Exit code, the packages that were loaded, and what was printed on stderr."""
    command = [sys.executable, "-c", DRIVER, *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    _, code, _, *packages = done.stdout.splitlines()[-1].split()
    return int(code), " ".join(packages), done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing(script):
    assert answer([*script.split(), "--help"]) == (0, "", "")


@pytest.mark.parametrize(("script", "mistake"), SCRIPTS.items())
def test_a_misspelled_option_is_told_before_anything_is_loaded(script, mistake):
    code, packages, stderr = answer([*script.split(), *mistake.split()])
    assert (code, packages) == (2, "")
    assert stderr.startswith("error: ") and stderr.count("\n") == 1


def test_the_check_notices_a_package(tmp_path):
    """The check itself: a script that loads NumPy before it answers is found out."""
    script = tmp_path / "script.py"
    script.write_text("import numpy, sys; sys.exit(0)")
    assert "numpy" in answer([str(script), "--help"])[1].split()


def test_plain_names_are_those_of_the_registries():
    from clearclip.evaluation.launchers import LAUNCHERS
    from clearclip.methods import METHODS
    from clearclip.segmentation import HEAT_MAP_SCALES

    # Other tests register methods of their own.
    classes = {name: getattr(method, "func", method) for name, method in METHODS.items()}
    built_in = [name for name, method in classes.items() if method.__module__.startswith("clearclip.")]
    assert list(METHOD_NAMES) == built_in
    assert LAUNCHER_NAMES == LAUNCHERS
    assert HEAT_MAP_SCALE_NAMES == HEAT_MAP_SCALES


def test_analysis_steps_are_those_that_analyze_does():
    from clearclip.commands.analyze_parser import ANALYSIS_STEPS

    source = (REPOSITORY / "clearclip" / "commands" / "analyze.py").read_text(encoding="utf-8")
    assert all(f'"{step}"' in source for step in ANALYSIS_STEPS)


def test_public_names_are_loaded_when_asked_for():
    import clearclip

    assert all(getattr(clearclip, name) is not None for name in clearclip.__all__)
    assert set(clearclip.__all__) <= set(dir(clearclip))
    assert clearclip.weights.RANDOM == "random"  # a module of the package
    with pytest.raises(AttributeError, match="no attribute 'unheard_of'"):
        _ = clearclip.unheard_of
