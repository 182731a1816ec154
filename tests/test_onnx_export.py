"""ONNX files, computed by onnxruntime and by PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clearclip import ClearCLIP, UserError
from clearclip.commands.command_line import run_command
from clearclip.commands.export import run_export
from clearclip.commands.export_parser import export_parser
from clearclip.methods import LastBlock
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


def noise_image(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def runtime():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'clearclip[export]'")


def test_onnxruntime_agrees(quick_name: str, tmp_path: Path) -> None:
    import onnxruntime

    model = model_of(quick_name, "ClearCLIP")
    words, size = ["sky", "hill | mountain", "tree"], (80, 112)
    path = export_onnx(model, tmp_path / "model.onnx", words, size)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["classes"].split("\n") == words and facts["method"] == "ClearCLIP" and facts["size"] == "80 × 112"
    image = noise_image(size)
    [similarities] = session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})
    assert similarities.shape == (1, 5, 7, 4)
    assert np.abs(similarities - expected(model, image, words)).max() < 1e-4
    # The model is as it was.
    assert np.isfinite(model.segment(image, words).probabilities).all()


def test_any_size_and_any_words(quick_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file for images of any size, the trained one among them, and for any number of words."""
    import onnxruntime

    # As for larger models: their layers are packed where that is faster.
    monkeypatch.setenv("CLEARCLIP_PACKED_LINEARS", "yes")
    model = model_of(quick_name, "NACLIP")
    path = export_onnx(model, tmp_path / "model.onnx", None, any_size=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["size"] == "any"
    rows, columns = model.image_encoder.grid_size
    height, width = rows * 16, columns * 16
    words = ["sky", "tree", "boat", "water", "grass"]
    for count, size in enumerate(((height, width), (32, 32), (48, 144), (height, width + 9)), start=2):
        image = noise_image(size)
        inputs = {"image": image.transpose(2, 0, 1)[None].astype(np.float32)}
        inputs["words"] = model.encode_text(words[:count]).features.numpy()
        [similarities] = session.run(None, inputs)
        assert similarities.shape == (1, size[0] // 16, size[1] // 16, count)
        assert np.abs(similarities - expected(model, image, words[:count])).max() < 1e-4


def test_what_cannot_be_exported_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_name: str) -> None:
    path = tmp_path / "model.onnx"
    model = model_of("miniature", "ProxyCLIP")
    with pytest.raises(UserError, match="ProxyCLIP cannot be exported: it needs a second encoder"):
        export_onnx(model, path, ["sky", "tree"])
    quick = model_of(quick_name, "ClearCLIP")
    with pytest.raises(UserError, match="give multiples of the patch, 16 × 16"):
        export_onnx(quick, path, ["sky", "tree"], (60, 64))
    with pytest.raises(UserError, match="leave one of --size and --any-size out"):
        export_onnx(quick, path, ["sky", "tree"], (64, 64), any_size=True)
    with monkeypatch.context() as context:
        # A method of one's own with scores of its own: the file would have plain cosines.
        context.setattr(LastBlock, "scores", lambda *_: None)
        with pytest.raises(UserError, match="it does more than compare patches with words"):
            export_onnx(quick, path, ["sky", "tree"])
    with monkeypatch.context() as context:
        context.setattr(quick.image_encoder, "fixed_size", 64)
        with pytest.raises(UserError, match=r"takes 64 × 64 only; leave --any-size out"):
            export_onnx(quick, path, ["sky", "tree"], any_size=True)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nlong explanation")

    with monkeypatch.context() as context:
        context.setattr(torch.onnx, "export", fail)
        with pytest.raises(UserError, match=r"ClearCLIP cannot be exported.*no such operator\)"):
            export_onnx(quick, path, ["sky", "tree"])
        with pytest.raises(UserError, match=r"cannot be exported for any size: .*no such operator\); leave --any-size"):
            export_onnx(quick, path, ["sky", "tree"], any_size=True)
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
        return run_command(lambda: run_export(export_parser().parse_args(list(arguments))))

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
    assert export(str(path), "--classes", "sky, tree", "--any-size", "--size", "64", "64", *common) == 2
