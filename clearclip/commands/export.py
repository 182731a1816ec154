"""What ``clearclip export`` does once its arguments have been read."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from clearclip.commands.model_arguments import choose_classes, read_settings
from clearclip.model import ClearCLIP
from clearclip.onnx_export import export_onnx
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder
from clearclip.utils.printable import printable


def run(args: Namespace) -> None:
    """Export as the arguments say, and say what is in the file; a UserError for what the user can fix."""
    if args.file.suffix.lower() != ".onnx":
        raise UserError(f"{args.file}: give a file with the suffix .onnx")
    check_folder("the file's folder", args.file.absolute().parent)
    args.images = [args.file]  # so that the miniature has to be asked for
    settings = replace(read_settings(args), device="cpu", precision="fp32")
    classes = None
    if args.words_as_input:
        if args.classes or args.name_path:
            raise UserError("--words-as-input takes no classes; leave them out, or leave it out")
    else:
        classes = choose_classes(args, settings)
    model = ClearCLIP.from_settings(settings)
    path = export_onnx(model, args.file, classes, None if args.size is None else tuple(args.size))
    size = path.stat().st_size / 1e6
    print(f"{printable(path)}  ({size:.0f} MB, {model.label}, {model.method.label}); onnxruntime computes the same")
