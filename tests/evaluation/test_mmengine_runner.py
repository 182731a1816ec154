"""MMEngine's runner on a machine that lacks what it looks for."""

from __future__ import annotations

from quick_runs import config, quick

from clearclip.commands.eval import eval_command


def test_a_machine_without_a_compiler(tmp_path, monkeypatch, quick_name, capfd):
    """MMEngine's runner looks for gcc, which prints that there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["--config", config("miniature"), "--limit", "1", "--workdir", str(tmp_path / "w"), "--workers", "0"]
    assert eval_command([*arguments, "--results", str(tmp_path / "r.xlsx"), *quick(quick_name)]) == 0
    assert "not found" not in capfd.readouterr().err
