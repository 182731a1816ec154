"""A model as an ONNX file: image → cosine similarity of every patch with every word, by one method.

The file sees one window: what :meth:`clearclip.ClearCLIP.segment` does with several windows, the resize to the image
and the choice of the largest word are left to who uses it (docs/use_the_result.md).
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.methods import Method
from clearclip.model import Classes, ClearCLIP
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes

#: Largest difference between the file's similarities and the model's that is accepted; cosines are at most 1.
TOLERANCE = 1e-4


class PatchSimilarity(nn.Module):
    """(1, 3, H, W) RGB, 0 to 255, → (1, rows of patches, columns of patches, words) cosine similarities.

    Args:
        model: whose image tower and normalisation.
        method: how the last blocks are computed.
        words: unit vectors of the words, (words, E); None: they are the second input.
    """

    def __init__(self, model: ClearCLIP, method: Method, words: Tensor | None):
        super().__init__()
        # A copy, since the exporter leaves tensors without values behind; one that keeps no intermediate results, which
        # would become constants of the file.
        self.encoder = copy.deepcopy(model.image_encoder)
        self.encoder.__dict__["once"] = _compute
        self.method = method.completed(model.image_encoder.method_options)
        for name, value in (("mean", model.mean), ("std", model.std), ("words", words)):
            self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, image: Tensor, words: Tensor | None = None) -> Tensor:
        """See the class."""
        words = self.words if words is None else words
        [features] = self.encoder((image - self.mean) / self.std, [self.method], words)
        return F.normalize(features.float(), dim=-1) @ words.T


def _compute(key: tuple, compute: Callable[[], Any]) -> Any:
    """In the place of :meth:`DenseEncoder.once`: nothing is kept."""
    return compute()


def export_onnx(
    model: ClearCLIP, path: str | Path, classes: Classes | None, size: tuple[int, int] | None = None
) -> Path:
    """Write a model as an ONNX file and compare what onnxruntime computes with it.

        export_onnx(model, "model.onnx", ["sky", "hill | mountain", "horse"])

    Args:
        model: in fp32 on the CPU; its own method is exported.
        path: of the file.
        classes: names in label order, which become part of the file; None: the words' features, (words, E) unit
            vectors of :meth:`ClearCLIP.encode_text`, are a second input.
        size: height and width of images, multiples of the patch; default: the settings' window.

    Returns:
        the path. The file's inputs are "image" and perhaps "words", its output is "similarities"; its metadata have the
        classes, the method and the model.

    Raises:
        UserError: a package is missing, the method cannot be exported, or the file computes something else.
    """
    _check_packages()
    method = model.method
    _check_method(model, method)
    height, width = size or _window_size(model)
    patch_height, patch_width = model.image_encoder.patch_size
    if height % patch_height or width % patch_width or min(height, width) < 1:
        raise UserError(f"size {height} × {width}: give multiples of the patch, {patch_height} × {patch_width} pixels")
    text = None if classes is None else model.encode_text(classes)
    network = PatchSimilarity(model, method, None if text is None else text.features).eval()
    inputs = {"image": _noise(height, width)}
    if text is None:
        inputs["words"] = model.encode_text(["this", "that", "something else"]).features
    # Another image than the one that the exporter follows, and computed before it does.
    other_inputs = {**inputs, "image": inputs["image"].flip(-1)}
    with torch.no_grad():
        expected = network(*other_inputs.values())
    file_bytes = _export(network, inputs, method)
    file_bytes = _with_metadata(file_bytes, model, method, text.classes if text is not None else None)
    _compare(file_bytes, other_inputs, expected)
    return write_bytes(path, file_bytes)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"the export needs {error.name}; install it: pip install 'clearclip[export]'") from error


def _check_method(model: ClearCLIP, method: Method) -> None:
    """Raise a UserError for what no file of one window can compute."""
    completed = method.completed(model.image_encoder.method_options)
    if "second encoder" in completed.needs:
        raise UserError(
            f"{method.label} cannot be exported: it needs a second encoder; export ClearCLIP or another one"
        )
    if model.precision != "fp32" or model.device.type != "cpu":
        raise UserError("the export is in fp32 on the CPU; load the model with precision='fp32', device='cpu'")


def _window_size(model: ClearCLIP) -> tuple[int, int]:
    side = model.settings.slide_crop or model.settings.short_side
    if not side:
        raise UserError("a model without windows has no size; give --size HEIGHT WIDTH")
    patch_height, patch_width = model.image_encoder.patch_size
    return side // patch_height * patch_height, side // patch_width * patch_width


def _noise(height: int, width: int) -> Tensor:
    """An image to export and to compare with, (1, 3, H, W), 0 to 255."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator).float()


def _export(network: PatchSimilarity, inputs: dict[str, Tensor], method: Method) -> bytes:
    """The file's bytes. Words may be of any number where they are an input."""
    dynamic = None
    if "words" in inputs:
        dynamic = {"image": None, "words": {0: torch.export.Dim("word_count", min=2, max=100_000)}}
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            program = torch.onnx.export(
                network,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["similarities"],
                dynamic_shapes=dynamic,
                dynamo=True,
                verbose=False,
            )
            # In one file, since a second one for the weights gets lost.
            program.save(str(Path(folder, "model.onnx")), external_data=False)
            return Path(folder, "model.onnx").read_bytes()
    except Exception as error:  # the exporter raises all sorts of errors on what it cannot follow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{method.label} cannot be exported: PyTorch's exporter cannot follow it ({type(error).__name__}: "
            f"{reason}); export ClearCLIP or another method"
        ) from error


@contextmanager
def _quiet():
    """Without what the exporter says of its steps."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _with_metadata(file_bytes: bytes, model: ClearCLIP, method: Method, classes: ClassWords | None) -> bytes:
    """The file with what its numbers mean."""
    import onnx

    proto = onnx.load_model_from_string(file_bytes)
    facts = {"model": model.label, "method": method.label, "logit_scale": str(model.settings.logit_scale)}
    if classes is not None:
        facts["classes"] = "\n".join(" | ".join(words) for words in classes.classes)
    onnx.helper.set_model_props(proto, facts)
    return proto.SerializeToString()


def _compare(file_bytes: bytes, inputs: dict[str, Tensor], expected: Tensor) -> None:
    """Raise a UserError where onnxruntime computes something else than PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file_bytes, options, providers=["CPUExecutionProvider"])
    [similarities] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    difference = (torch.from_numpy(similarities) - expected).abs().max().item()
    if not difference <= TOLERANCE:
        raise UserError(
            f"the file's similarities differ by {difference:.1g} from the model's, more than {TOLERANCE:g}; "
            "nothing is written"
        )
