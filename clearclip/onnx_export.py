"""A model as an ONNX file: image → cosine similarity of every patch with every word, by one method.

The file sees one window: what :meth:`clearclip.ClearCLIP.segment` does with several windows, the resize to the image
and the choice of the largest word are left to who uses it (docs/use_the_result.md).
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearclip.backbones.dense_encoder import DenseEncoder
from clearclip.backbones.position_matrices import resize_by_matrices
from clearclip.methods import Method
from clearclip.model import Classes, ClearCLIP
from clearclip.text import TextFeatures
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes

#: Largest difference between the file's similarities and the model's that is accepted; cosines are at most 1.
TOLERANCE = 1e-4
#: Rows or columns of patches of a file for any size; a graph for one row would be another graph.
LEAST_PATCHES, MOST_PATCHES = 2, 1024


class PatchSimilarity(nn.Module):
    """(1, 3, H, W) RGB, 0 to 255, → (1, rows of patches, columns of patches, words) cosine similarities.

    Args:
        model: whose method and normalisation.
        encoder: its image tower, or a copy.
        text: the words; None: their unit vectors, (words, E), are the second input.
    """

    def __init__(self, model: ClearCLIP, encoder: DenseEncoder, text: TextFeatures | None):
        super().__init__()
        self.encoder = encoder
        self.method = model.method.completed(encoder.method_options)
        self.register_buffer("mean", model.mean.detach().clone())
        self.register_buffer("std", model.std.detach().clone())
        self.register_buffer("words", None if text is None else text.features.detach().clone())

    def forward(self, image: Tensor, words: Tensor | None = None) -> Tensor:
        """See the class."""
        words = self.words if words is None else words
        [features] = self.encoder((image - self.mean) / self.std, [self.method], words)
        return F.normalize(features.float(), dim=-1) @ words.T


def export_onnx(
    model: ClearCLIP,
    path: str | Path,
    classes: Classes | None,
    size: tuple[int, int] | None = None,
    any_size: bool = False,
) -> Path:
    """Write a model as an ONNX file and compare what onnxruntime computes with it.

        export_onnx(model, "model.onnx", ["sky", "hill | mountain", "horse"])

    Args:
        model: in fp32 on the CPU; its own method is exported.
        path: of the file.
        classes: names in label order, which become part of the file; None: the words' features, (words, E) unit
            vectors of :meth:`ClearCLIP.encode_text`, are a second input.
        size: height and width of images, multiples of the patch; default: the settings' window.
        any_size: the file takes images of any height and width from two patches on; what goes beyond the last whole
            patch is not seen. There is no ``size`` then.

    Returns:
        the path. The file's inputs are "image" and perhaps "words", its output is "similarities"; its metadata have the
        classes, the method, the model, the patch and the size.

    Raises:
        UserError: a package is missing, the method cannot be exported, or the file computes something else.
    """
    _check_packages()
    _check_model(model)
    if any_size:
        _check_any_size(model, size)
        followed_size, *compared_sizes = _sizes_around_trained(model.image_encoder)
    else:
        followed_size = _checked_size(model, size or _window_size(model))
        compared_sizes = [followed_size]
    text = None
    if classes is not None:
        text = model.encode_text(classes)
    example = _model_inputs(model, followed_size, text, seed=0)
    comparisons = []
    for seed, compared_size in enumerate(compared_sizes, start=1):
        inputs = _model_inputs(model, compared_size, text, seed)
        # Before the export, and by the model itself.
        comparisons.append((inputs, _similarities(model, inputs, text)))
    # A copy, since the exporter leaves tensors without values behind.
    encoder = _encoder_for_export(copy.deepcopy(model.image_encoder), any_size)
    network = PatchSimilarity(model, encoder, text).eval()
    file_bytes = _export(network, example, model.method, any_size)
    height, width = followed_size
    file_bytes = _with_metadata(file_bytes, model, "any" if any_size else f"{height} × {width}", text)
    for inputs, similarities in comparisons:
        _compare(file_bytes, inputs, similarities)
    return write_bytes(path, file_bytes)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"the export needs {error.name}; install it: pip install 'clearclip[export]'") from error


def _check_model(model: ClearCLIP) -> None:
    """Raise a UserError for what no file of one window can compute."""
    method, label = model.method, model.method.label
    remedy = "export ClearCLIP or another one"
    if "second encoder" in method.completed(model.image_encoder.method_options).needs:
        raise UserError(f"{label} cannot be exported: it needs a second encoder; {remedy}")
    if type(method).scores is not Method.scores or type(method).join is not Method.join:
        raise UserError(f"{label} cannot be exported: it does more than compare patches with words; {remedy}")
    if model.precision != "fp32" or model.device.type != "cpu":
        raise UserError("the export is in fp32 on the CPU; load the model with precision='fp32', device='cpu'")


def _checked_size(model: ClearCLIP, size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    patch_height, patch_width = model.image_encoder.patch_size
    if height % patch_height or width % patch_width or min(height, width) < 1:
        raise UserError(f"size {height} × {width}: give multiples of the patch, {patch_height} × {patch_width} pixels")
    return height, width


def _window_size(model: ClearCLIP) -> tuple[int, int]:
    side = model.settings.slide_crop or model.settings.short_side
    if not side:
        raise UserError("a model without windows has no size; give --size HEIGHT WIDTH, or --any-size")
    patch_height, patch_width = model.image_encoder.patch_size
    return side // patch_height * patch_height, side // patch_width * patch_width


def _check_any_size(model: ClearCLIP, size: tuple[int, int] | None) -> None:
    if size is not None:
        raise UserError("a file for any size has no size of its own; leave one of --size and --any-size out")
    fixed_size = model.image_encoder.fixed_size
    if fixed_size is not None:
        raise UserError(f"this image tower takes {fixed_size} × {fixed_size} only; leave --any-size out")


def _sizes_around_trained(encoder: DenseEncoder) -> list[tuple[int, int]]:
    """A height and width to follow the computation with, and three to compare.

    One of these is the trained one, for which positional embeddings are left as they are.
    """
    rows, columns = encoder.grid_size
    grids = [(rows + 1, columns + 2), (rows, columns), (rows + 6, columns // 2 + 2), (3, columns + 3)]
    patch_height, patch_width = encoder.patch_size
    return [(rows * patch_height, columns * patch_width) for rows, columns in grids]


def _model_inputs(model: ClearCLIP, size: tuple[int, int], text: TextFeatures | None, seed: int) -> dict[str, Tensor]:
    """Inputs to export and to compare with: an image of noise, and words where the file has none."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {"image": torch.randint(0, 256, (1, 3, *size), generator=generator).float()}
    if text is None:
        # Two words or three, since a file with words as input has to take any number.
        words = ["this", "that", "something else"][: 2 + seed % 2]
        inputs["words"] = model.encode_text(words).features
    return inputs


@torch.no_grad()
def _similarities(model: ClearCLIP, inputs: Mapping[str, Tensor], text: TextFeatures | None) -> Tensor:
    """What the file has to compute, by the model's own tower."""
    return PatchSimilarity(model, model.image_encoder, text)(*inputs.values())


def _encoder_for_export(encoder: DenseEncoder, any_size: bool) -> DenseEncoder:
    """``encoder``, which from now on keeps no results: they would become constants of the graph."""
    encoder.__dict__["cached_value"] = _compute
    # Towers with a resize of their own keep it; where the exporter cannot follow that, it says so.
    if any_size and type(encoder).resized_positions is DenseEncoder.resized_positions:
        encoder.__dict__["resized_positions"] = partial(_resized_positions, encoder.grid_size)
    return encoder


def _compute(key: tuple, compute: Callable[[], Any]) -> Any:
    """In the place of :meth:`DenseEncoder.cached_value`: nothing is kept."""
    return compute()


def _resized_positions(trained_grid: tuple[int, int], embedding: Tensor, grid: tuple[int, int], how: str) -> Tensor:
    """In the place of :meth:`DenseEncoder.resized_positions`."""
    return resize_by_matrices(embedding, trained_grid, grid, how)


def _export(network: PatchSimilarity, inputs: Mapping[str, Tensor], method: Method, any_size: bool) -> bytes:
    """The file's bytes.

    Args:
        network: what to export.
        inputs: an example of each input.
        method: for errors.
        any_size: whether images may be of any size. Words may be of any number where they are an input.
    """
    dynamic_shapes = _dynamic_shapes(inputs, network.encoder.patch_size, any_size)
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            program = torch.onnx.export(
                network,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["similarities"],
                dynamic_shapes=dynamic_shapes,
                dynamo=True,
                verbose=False,
            )
            # In one file, since a second one for the weights gets lost.
            program.save(str(Path(folder, "model.onnx")), external_data=False)
            return Path(folder, "model.onnx").read_bytes()
    except Exception as error:  # the exporter raises all sorts of errors on what it cannot follow
        raise _export_error(error, method, any_size) from error


def _export_error(error: Exception, method: Method, any_size: bool) -> UserError:
    """One line of what the exporter says."""
    # The exporter's own message is a page of advice; what it ran into is the cause.
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines() or [""]
    reason = f"{type(cause).__name__}: {lines[0][:120]}"
    if any_size:
        return UserError(
            f"{method.label} cannot be exported for any size: PyTorch's exporter cannot follow it ({reason}); "
            "leave --any-size out, or export ClearCLIP"
        )
    return UserError(
        f"{method.label} cannot be exported: PyTorch's exporter cannot follow it ({reason}); export ClearCLIP or "
        "another method"
    )


def _dynamic_shapes(
    inputs: Mapping[str, Tensor], patch_size: tuple[int, int], any_size: bool
) -> dict[str, dict[int, Any] | None]:
    """Which lengths of each input are given at run time; None: they are as in the example."""
    shapes: dict[str, dict[int, Any] | None] = dict.fromkeys(inputs)
    if any_size:
        # Multiples of the patch, so that the exporter can tell how many patches there are.
        rows = torch.export.Dim("rows", min=LEAST_PATCHES, max=MOST_PATCHES)
        columns = torch.export.Dim("columns", min=LEAST_PATCHES, max=MOST_PATCHES)
        shapes["image"] = {2: patch_size[0] * rows, 3: patch_size[1] * columns}
    if "words" in inputs:
        shapes["words"] = {0: torch.export.Dim("word_count", min=2, max=100_000)}
    return shapes


@contextmanager
def _quiet() -> Iterator[None]:
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


def _with_metadata(file_bytes: bytes, model: ClearCLIP, size: str, text: TextFeatures | None) -> bytes:
    """The file with what its numbers mean."""
    import onnx

    proto = onnx.load_model_from_string(file_bytes)
    patch_height, patch_width = model.image_encoder.patch_size
    facts = {
        "model": model.label,
        "method": model.method.label,
        "logit_scale": str(model.settings.logit_scale),
        "patch": f"{patch_height} × {patch_width}",
        "size": size,
    }
    if text is not None:
        facts["classes"] = "\n".join(" | ".join(words) for words in text.classes.classes)
    onnx.helper.set_model_props(proto, facts)
    return proto.SerializeToString()


def _compare(file_bytes: bytes, inputs: Mapping[str, Tensor], expected: Tensor) -> None:
    """Raise a UserError where onnxruntime computes something else than PyTorch, or fails."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is an error of this process, and not one of its log
    session = onnxruntime.InferenceSession(file_bytes, options, providers=["CPUExecutionProvider"])
    height, width = inputs["image"].shape[-2:]
    try:
        [similarities] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    except Exception as error:  # onnxruntime's errors have no class in common
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"onnxruntime fails at {height} × {width} ({reason}); nothing is written") from error
    difference = torch.from_numpy(similarities).sub(expected).abs().max().item()
    if not difference <= TOLERANCE:
        raise UserError(
            f"at {height} × {width} the file's similarities differ by {difference:.1g} from the model's, more than "
            f"{TOLERANCE:g}; nothing is written"
        )
