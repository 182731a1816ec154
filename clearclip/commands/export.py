"""What ``clearclip export`` does once its arguments have been read."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from clearclip.commands.model_arguments import choose_classes, read_settings
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.onnx_export import export_onnx
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.utils.printable import printable


def run_export(args: Namespace) -> None:
    """Export as the arguments say, and say what is in the file; a UserError for what the user can fix."""
    if args.file.suffix.lower() != ".onnx":
        raise UserError(f"{args.file}: give a file with the suffix .onnx")
    if args.any_size and args.size:
        raise UserError("a file for any size has no size of its own; leave one of --size and --any-size out")
    check_folder("the file's folder", args.file.absolute().parent)
    args.images = [args.file]  # so that the miniature has to be asked for
    settings = replace(read_settings(args), device="cpu", precision="fp32")
    classes = _classes_of_file(args, settings)
    model = ClearCLIP.from_settings(settings)
    size = tuple(args.size) if args.size else None
    path = export_onnx(model, args.file, classes, size, args.any_size)
    megabytes = path.stat().st_size / 1e6
    print(
        f"{printable(path)}  ({megabytes:.0f} MB, {model.label}, {model.method.label}); onnxruntime computes the same"
    )


def _classes_of_file(args: Namespace, settings: ModelSettings) -> ClassWords | None:
    """The classes that become part of the file; None where words are its input."""
    if not args.words_as_input:
        return choose_classes(args, settings)
    if args.classes or args.name_path:
        raise UserError("--words-as-input takes no classes; leave them out, or leave it out")
    return None
