"""What the page computes, from values as anybody may send them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.commands.demo_parser import demo_parser
from clearclip.commands.model_arguments import SCENES
from clearclip.commands.page_results import PageModel, all_methods, message_for_visitors
from clearclip.utils.errors import UserError


def upload(path: Path) -> dict:
    """A file as Gradio hands it over."""
    return {"path": str(path), "orig_name": path.name}


@pytest.fixture
def page(quick_name: str, tmp_path: Path) -> PageModel:
    Image.new("RGB", (60, 40), "green").save(tmp_path / "a.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    (tmp_path / "names.txt").write_text("sky, clouds\ngrass\n")
    options = f"--web {tmp_path} --name-path {tmp_path / 'names.txt'} --model {quick_name} --model-type SCLIP"
    args = demo_parser().parse_args([*options.split(), "--ignore-residual", "--prob-thd", "0.01"])
    return PageModel(args, tmp_path)


def test_honours_the_options(page: PageModel, tmp_path: Path) -> None:
    assert page.words == "background, sky | clouds, grass"
    assert page.images == [tmp_path / "a.png", tmp_path / "b.png"]
    assert next(iter(page.methods)) == "SCLIP + ClearCLIP" and {"CLIP", "GEM + ClearCLIP"} < set(page.methods)
    result = page.run(upload(page.images[0]), page.words, "SCLIP + ClearCLIP")
    facts = json.loads(Path(result.files[-1]).read_text())
    assert facts == {"labels": "a_labels.png", **result.facts} and facts["image"] == "a.png"
    assert [entry["words"] for entry in facts["classes"]] == [["background"], ["sky", "clouds"], ["grass"]]
    assert facts["method"] == "SCLIP + ClearCLIP" and len(result.heat_maps) == 4
    labels = np.asarray(Image.open(result.files[1]))
    clip = page.model.compare(page.images[0], ["background", "sky | clouds", "grass"], ["CLIP"])["CLIP"]
    for entry in facts["classes"]:
        assert entry["share"] == (labels == entry["id"]).mean()
        clip_share = clip.shares[entry["name"]]
        line = f'{entry["colour"]}"></span></td><td class="name">{entry["name"]}</td>'
        line += f"<td>{entry['share']:.1%}</td><td>{clip_share:.1%}</td>"
        assert (line in result.legend) == bool(entry["share"] or clip_share), "also what only CLIP sees"
    assert result.overlay.shape[:2] == (600, 900) and len(result.comparison) == 2
    assert result.scale.count("<span>") == 5
    many = page.run(upload(page.images[1]), ", ".join(f"word {k}" for k in range(99)), "LastBlock")
    assert len(many.heat_maps) == 48, "more would not fit the page"


def test_names_are_escaped(page: PageModel) -> None:
    result = page.run(upload(page.images[0]), "<b>sky</b>, <script>", "CLIP")
    assert "<b>" not in result.legend and "&lt;" in result.legend
    assert result.legend.count("<th>") == 1, "CLIP beside itself says nothing"


def test_reads_no_file_but_uploads(page: PageModel, tmp_path: Path) -> None:
    outside = [upload(Path("/etc/passwd")), upload(tmp_path / ".." / "x.png"), upload(SCENES[0])]
    for image in (None, "a.png", *outside, {"path": "a\0"}, {"path": "x" * 5000}, {"path": 7}, {}):
        with pytest.raises(UserError, match="no image yet"):
            page.run(image, "a, b", "CLIP")


@pytest.mark.parametrize(("words", "method", "message"), [
    ("a, b", "Magic", "unknown method 'Magic'"),
    ("", "CLIP", "no words given"),
    (" , ", "CLIP", "no words given"),
    ("a|" * 100 + "b", "CLIP", "give at most 100"),
    ("a" * 20_000, "CLIP", "give at most 100"),
    ("a, b", ["CLIP"], "must be text"),
    (7, "CLIP", "must be text"),
    ("a, b", "x" * 5000, "is no name of a method"),
])  # fmt: skip
def test_what_a_visitor_may_mistake(page: PageModel, words: object, method: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        page.run(upload(page.images[0]), words, method)


@pytest.mark.parametrize("options", [
    {"guide": "dino-vitb8", "guide_weights": "/etc/passwd"},
    {"guide": "hf-hub:somebody/something"},
    {"guide": "untrained-vit4"},
])  # fmt: skip
def test_methods_are_names_without_options(page: PageModel, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """No JSON: its options name files and repositories. Nothing is loaded that the page did not start with."""

    def refuse(*_: object) -> None:
        raise AssertionError("something is loaded")

    monkeypatch.setattr("clearclip.window_encoder.load_second_encoder", refuse)
    for method in (json.dumps({"type": "ProxyCLIP", **options}), str({"type": "ProxyCLIP", **options})):
        with pytest.raises(UserError, match="is no name of a method"):
            page.run(upload(page.images[0]), "a, b", method)
    assert "ProxyCLIP" not in page.methods
    with pytest.raises(UserError, match="second encoder, which a page does not fetch"):
        page.run(upload(page.images[0]), "a, b", "ProxyCLIP")


def test_messages_name_no_folder() -> None:
    error = UserError("image /tmp/x/photo.png cannot be read: <no>")
    assert message_for_visitors(error, {"path": "/tmp/x/photo.png"}) == "image photo.png cannot be read: &lt;no&gt;"
    assert message_for_visitors(error, None) == "image /tmp/x/photo.png cannot be read: &lt;no&gt;"


def test_all_methods_are_each_once() -> None:
    labels = [method.label for method in all_methods()]
    assert labels[:3] == ["CLIP", "ClearCLIP", "MaskCLIP"] and len(set(labels)) == len(labels)
    assert {"MaskCLIP + ClearCLIP", "SCLIP", "SCLIP + ClearCLIP", "GEM", "GEM + ClearCLIP"} <= set(labels)
    assert {"NACLIP", "ClearCLIP + RCS", "NACLIP + RCS", "SC-CLIP"} <= set(labels)
