"""What an installed wheel brings: the command with its four parts, and the configs, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import rows_of

from clearclip import UserError, __version__
from clearclip.commands import main as clearclip_command
from clearclip.evaluation.config import CONFIGS, load_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    wheels, build = folder / "wheels", folder / "build"
    # The sources are copied, so that two builds at a time do not meet in build/.
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in files.stdout.splitlines():
        if name.startswith(("clearclip/", "config/")) or "/" not in name:
            (build / name).parent.mkdir(parents=True, exist_ok=True)
            (build / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(wheels), str(build)], check=True)
    with zipfile.ZipFile(*wheels.glob("*.whl")) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_evaluates_in_an_empty_folder(site, tmp_path):
    start = f"import sys; sys.path[0] = {str(site)!r}; from clearclip.commands.main import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "eval", "--config", "cfg_miniature.py", "--limit", "2", "--workers", "0"]
    environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    assert len(rows_of(tmp_path / "results.xlsx")) == 1
    for path in CONFIGS.iterdir():
        if path.suffix in (".py", ".txt"):
            assert (site / "clearclip" / "config" / path.name).read_bytes() == path.read_bytes()
    assert (site / "clearclip" / "py.typed").is_file()


@pytest.mark.parametrize("command", clearclip_command.COMMANDS)
def test_every_command(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clearclip", command, "--help"])
    with pytest.raises(SystemExit) as stop:
        clearclip_command.main()
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: clearclip {command} ")


def test_the_command_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clearclip", "--version"])
    with pytest.raises(SystemExit):
        clearclip_command.main()
    assert capsys.readouterr().out == f"clearclip {__version__}\n"
    monkeypatch.setattr(sys, "argv", ["clearclip", "train"])
    assert clearclip_command.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "'train'" in error and "eval-all" in error and error.count("\n") == 1


def test_bundled_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cfg_voc20.py", "config/cfg_voc20.py"):
        assert load_config(name).dataset_name == "voc20"
    for name in ("cfg_moon.py", "mine/cfg_voc20.py"):
        with pytest.raises(UserError, match=f"config {name} does not exist"):
            load_config(name)
    # One's own comes first.
    (tmp_path / "cfg_voc20.py").write_text((CONFIGS / "base_config.py").read_text())
    with pytest.raises(UserError, match="data_root"):
        load_config("cfg_voc20.py")
