"""Weights by their bytes: those of second encoders as well."""

from __future__ import annotations

import pytest

from clearclip import UserError, build_method
from clearclip.checkpoint_names import BUNDLED_METHOD_OPTIONS
from clearclip.evaluation import weight_facts
from clearclip.evaluation.run_facts import method_facts


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file in the place of the published weights of a second encoder; others are not on this machine."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")

    def fetch(repository, *names, remedy):
        if repository.endswith(".dino") and file.exists():
            return file
        raise UserError("it would have to be downloaded")

    monkeypatch.setattr(weight_facts, "fetch", fetch)
    return file


# Methods whose second encoder is one of DINO's, by default and by name.
METHODS = [
    "ProxyCLIP",
    {"type": "ProxyCLIP", "guide": "dino-vitb16"},
    "LPOSS",
]


@pytest.mark.parametrize("description", METHODS, ids=str)
def test_the_bytes_of_published_weights_count(description, published):
    method = build_method(description)
    facts = method_facts(method)
    assert facts == method_facts(method)
    published.write_bytes(b"other weights")
    assert method_facts(method)["second encoder"] != facts["second encoder"]
    published.unlink()
    assert "second encoder" not in method_facts(method)


def test_a_model_with_a_second_encoder_of_its_own(published):
    """The miniature's is untrained: whether DINO's weights are there changes nothing."""
    options = BUNDLED_METHOD_OPTIONS["miniature"]
    for description in ("ProxyCLIP", "LPOSS", "ClearCLIP"):
        assert "second encoder" not in method_facts(build_method(description), options)


def test_weights_in_a_file_count_by_its_content(published, tmp_path):
    file = tmp_path / "own.pth"
    file.write_bytes(b"one")
    method = build_method({"type": "ProxyCLIP", "guide_weights": str(file)})
    facts = method_facts(method)
    assert "second encoder" not in facts
    file.write_bytes(b"two")
    assert method_facts(method)["guide_weights"] != facts["guide_weights"]
