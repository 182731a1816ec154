"""The options of ``clearclip export``. Nothing heavy is imported here: misspelled options answer at once."""

from __future__ import annotations

from clearclip.commands.command_line import CommandParser, ImportFile, JoinWords
from clearclip.commands.known_names import METHOD_NAMES
from clearclip.commands.model_flags import WORDS, add_model_options
from clearclip.model_settings import ModelSettings
from clearclip.utils.files import user_path


def export_parser() -> CommandParser:
    """The options."""
    parser = CommandParser(
        description="Write a model as an ONNX file: image in, cosine similarity of its patches with words out.",
        epilog='example: clearclip export model.onnx --classes "sky, hill | mountain, tree" --model ViT-B-16',
    )
    add = parser.add_argument
    add("file", type=user_path, help="the file to write, such as model.onnx")
    add("--classes", action=JoinWords, metavar="WORDS", help=f"part of the file; {WORDS}")
    add("--name-path", metavar="FILE", help="the same as a file: a class per line")
    add("--background", action="store_true", help='add the class "background" as label 0')
    add("--words-as-input", action="store_true", help="in place of classes: their features are a second input")
    add("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="of the image (default: a window's)")
    add("--any-size", action="store_true", help="the file takes images of any height and width")
    names = ", ".join(METHOD_NAMES)
    add("--model-type", default=ModelSettings.model_type, metavar="NAME", help=f"{names} (default: %(default)s)")
    add("--ignore-residual", action="store_true", help='the method "+ ClearCLIP": without residual connection and FFN')
    add("--import", action=ImportFile)
    add_model_options(parser.add_argument_group("model (default: CLIP ViT-B/16)"))
    return parser
