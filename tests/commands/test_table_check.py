"""Data, weights and port are looked at before anything is started."""

from __future__ import annotations

import socket

import pytest

from clearclip import UserError
from clearclip.commands import table_check
from clearclip.commands.table_check import TableCheck, check_port
from clearclip.commands.table_plan import plan
from clearclip.results.table_definitions import find_table


def groups(table, systems, **overrides):
    miniature = find_table(table, bundled=True)
    return plan(miniature.select_rows(systems), miniature.datasets, overrides)


def test_nothing_is_missing_for_the_miniature():
    (group,) = groups("2", ["CLIP"])
    assert TableCheck(None, "stop").missing(group.cfg) == ""


def test_missing_data_is_looked_for_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(table_check, "quick_check", lambda cfg, on_error: calls.append(cfg) or refuse("no images"))
    check = TableCheck(None, "stop")
    for _ in range(3):
        (group,) = groups("2", ["CLIP"])
        assert check.missing(group.cfg) == "no images"
    assert len(calls) == 1


def refuse(message):
    raise UserError(message)


@pytest.mark.parametrize("may_fetch", [True, False])
def test_missing_weights_are_told(tmp_path, may_fetch):
    (group,) = groups("2", ["CLIP"], **{"model.pretrained": str(tmp_path / "missing.pt")})
    assert "missing.pt: there is no such file" in TableCheck(None, "stop", may_fetch).missing(group.cfg)


def test_a_plan_fetches_no_weights(monkeypatch):
    monkeypatch.setattr(table_check, "find_checkpoint", lambda weights: pytest.fail("looked for weights"))
    monkeypatch.setattr(table_check, "quick_check", lambda cfg, on_error: [])
    rows = find_table("2").select_rows(["CLIP", "BLIP"], ["ViT-B/16"])
    for group in plan(rows, ["voc20"], {}):
        assert TableCheck(4, "stop", may_fetch=False).missing(group.cfg) == ""


def test_a_port_that_is_taken(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        with pytest.raises(UserError, match=rf"PORT={port} cannot be used .*; set PORT to a free one, or leave it out"):
            check_port(port)
        monkeypatch.setenv("PORT", port)
        with pytest.raises(UserError, match=f"PORT={port} cannot be used"):
            TableCheck(2, "stop").check_start()
        TableCheck(None, "stop").check_start()
    check_port(port)


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", ""])
def test_what_is_no_port(port):
    with pytest.raises(UserError, match="is no port"):
        check_port(port)


def test_a_package_without_the_script_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(table_check, "START_SCRIPT", tmp_path / "dist_test.sh")
    with pytest.raises(UserError, match=r"--gpus needs dist_test\.sh"):
        TableCheck(2, "stop").check_start()
