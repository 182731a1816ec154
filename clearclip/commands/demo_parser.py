"""The options of ``demo.py``. Nothing heavy is imported here: ``--help`` and misspelled options answer at once."""

from __future__ import annotations

from pathlib import Path

from clearclip.commands.command_line import CommandParser, ImportFile, JoinWords
from clearclip.commands.known_names import HEAT_MAP_SCALE_NAMES, METHOD_NAMES
from clearclip.commands.map_flags import add_map_options
from clearclip.commands.model_flags import MODEL_FLAGS, SIZE_FLAGS, WORDS, add_model_options
from clearclip.model_settings import ModelSettings
from clearclip.results.table_definitions import FAMILY
from clearclip.utils.files import user_path

#: Suffixes of pictures that the demo writes.
PICTURE_FORMATS = ("png", "jpg", "svg", "pdf")


def demo_parser() -> CommandParser:
    """The options."""
    parser = CommandParser(
        description="Segment images by words. Without arguments: the bundled miniature, offline.",
        epilog='example: python demo.py photo.jpg --classes "sky, hill | mountain, tree, horse" --compare',
    )
    # Not as paths: "photo[1].jpg" may be a name or a pattern.
    parser.add_argument("images", nargs="*", help="image files, folders or glob patterns")
    add = parser.add_argument_group("words").add_argument
    add("--classes", action=JoinWords, metavar="WORDS", help=WORDS)
    add("--name-path", metavar="FILE", help="the same as a file: a class per line")
    add("--background", action="store_true", help='add the class "background" as label 0')
    add = parser.add_argument_group("method").add_argument
    method_help = f'{", ".join(METHOD_NAMES)}, a row such as "SCLIP + ClearCLIP", or your own'
    add("--model-type", default=ModelSettings.model_type, metavar="NAME", help=f"{method_help} (default: %(default)s)")
    add("--ignore-residual", action="store_true", help='the method "+ ClearCLIP": without residual connection and FFN')
    add("--import", action=ImportFile)
    add_model_options(parser.add_argument_group("model"), (*MODEL_FLAGS, *SIZE_FLAGS))
    add = parser.add_argument_group("result").add_argument
    add("--out", type=user_path, default=Path("outputs/demo"), metavar="FOLDER", help="default: %(default)s")
    rows = f"also methods side by side (default: {', '.join(FAMILY)} and the one chosen)"
    add("--compare", nargs="*", metavar="NAME", help=rows)
    add("--heatmaps", action="store_true", help="also a similarity map for each word")
    scale_help = "colours of the maps: shared by all words, or word: from each one's smallest value to its largest"
    add("--heatmap-scale", choices=HEAT_MAP_SCALE_NAMES, help=f"{scale_help} (default: shared)")
    # A result's label map is a PNG in every case: other formats may change the ids.
    add("--format", choices=PICTURE_FORMATS, default="png", help="of the pictures; svg and pdf are for papers")
    add("--coco", action="store_true", help="also coco.json: annotations of all images")
    add("--cvat", action="store_true", help="also cvat.zip: masks of all images for CVAT")
    add("--skip-existing", action="store_true", help="leave out images that have this very result already")
    add_map_options(parser)
    add = parser.add_argument_group("web page").add_argument
    add("--web", action="store_true", help="serve a page for this machine's browser (needs gradio)")
    add("--port", type=int, help="of the page (default: the first free one from 7860)")
    return parser
