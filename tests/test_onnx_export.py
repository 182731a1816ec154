"""ONNX files, computed by onnxruntime and by PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clearclip import ClearCLIP, UserError
from clearclip.commands.command_line import run_command
from clearclip.commands.export import run
from clearclip.commands.export_parser import make_parser
from clearclip.onnx_export import export_onnx


def model_of(name: str, method: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(
        name, method=method, device="cpu", precision="fp32", slide_crop=64, slide_stride=64
    )


def expected(model: ClearCLIP, image: np.ndarray, words: list[str]) -> np.ndarray:
    """Cosines of the public way: encode the image, and compare with the words."""
    text = model.encode_text(words)
    [features] = model.encode(model.normalize(image)[None], [model.method], text)
    features = torch.nn.functional.normalize(features.float(), dim=-1)
    return (features @ text.features.T).numpy()


@pytest.fixture(autouse=True)
def runtime():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'clearclip[export]'")


@pytest.mark.parametrize(("method", "size"), [
    ("ClearCLIP", (64, 64)), ("ClearCLIP", (80, 112)), ("CLIP", (64, 64)), ("SCLIP + ClearCLIP", (48, 64)),
])  # fmt: skip
def test_onnxruntime_agrees(method: str, size: tuple[int, int], quick_name: str, tmp_path: Path) -> None:
    import onnxruntime

    model = model_of(quick_name, method)
    words = ["sky", "hill | mountain", "tree"]
    path = export_onnx(model, tmp_path / "model.onnx", words, size)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["classes"].split("\n") == words and facts["method"] == method
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    [similarities] = session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})
    assert similarities.shape == (1, size[0] // 16, size[1] // 16, 4)
    assert np.abs(similarities - expected(model, image, words)).max() < 1e-4
    # The model is as it was.
    assert np.isfinite(model.segment(image, words).probabilities).all()


def test_words_as_input(quick_name: str, tmp_path: Path) -> None:
    """One file for any number of words."""
    import onnxruntime

    model = model_of(quick_name, "ClearCLIP")
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "model.onnx", None))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for words in (["sky", "tree"], ["a", "b", "c", "d", "e"]):
        inputs = {"image": image.transpose(2, 0, 1)[None].astype(np.float32)}
        inputs["words"] = model.encode_text(words).features.numpy()
        [similarities] = session.run(None, inputs)
        assert np.abs(similarities - expected(model, image, words)).max() < 1e-4


def test_what_cannot_be_exported_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_name: str) -> None:
    path = tmp_path / "model.onnx"
    model = model_of("miniature", "ProxyCLIP")
    with pytest.raises(UserError, match="ProxyCLIP cannot be exported: it needs a second encoder"):
        export_onnx(model, path, ["sky", "tree"])
    quick = model_of(quick_name, "ClearCLIP")
    with pytest.raises(UserError, match="give multiples of the patch, 16 × 16"):
        export_onnx(quick, path, ["sky", "tree"], (60, 64))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nlong explanation")

    with monkeypatch.context() as context:
        context.setattr(torch.onnx, "export", fail)
        with pytest.raises(UserError, match=r"ClearCLIP cannot be exported.*no such operator\)"):
            export_onnx(quick, path, ["sky", "tree"])
    with monkeypatch.context() as context:
        context.setattr("clearclip.onnx_export.TOLERANCE", -1.0)
        with pytest.raises(UserError, match=r"differ by .* nothing is written"):
            export_onnx(quick, path, ["sky", "tree"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'clearclip\[export\]'"):
        export_onnx(quick, path, ["sky", "tree"])
    assert list(tmp_path.iterdir()) == []


def test_command(quick_name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def export(*arguments: str) -> int:
        return run_command(lambda: run(make_parser().parse_args(list(arguments))))

    path = tmp_path / "new" / "model.onnx"
    common = ("--model", quick_name, "--slide-crop", "64", "--slide-stride", "64")
    assert export(str(path), "--classes", "sky, tree", *common) == 0 and path.is_file()
    assert "onnxruntime computes the same" in capsys.readouterr().out
    for wrong in (
        (str(tmp_path / "model.txt"), "--classes", "sky, tree"),
        (str(path),),
        (str(path), "--classes", "sky"),
    ):
        assert export(*wrong, *common) == 2
    assert export(str(path), "--classes", "sky, tree", "--words-as-input", *common) == 2
