"""The image files that a command line means: files, folders with their subfolders, and glob patterns."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clearclip.rasters.geotiff import is_label_map
from clearclip.utils.errors import UserError
from clearclip.utils.files import user_path

#: Files of a folder that are taken for images, by their names.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".avif", ".jp2",
)  # fmt: skip
#: The pictures of iPhones; they need the package pillow-heif.
HEIC_SUFFIXES = (".heic", ".heif")
#: What the names of a result's pictures end in; the label map's facts are beside them.
RESULT_PICTURES = ("_segmentation", "_compare", "_heatmaps", "_labels")
RESULT_FACTS = "_labels.json"
#: Among so many arguments a name is looked for that the shell has split at its blanks.
MAX_SPLIT_NAMES = 20


@dataclass
class ImageFile:
    """An image, and the folder below the one that was named in which it lies ("." for the folder itself)."""

    path: Path
    subfolder: Path = Path()


@dataclass
class ImageSearch:
    """What was found.

    Attributes:
        images: in order, each once.
        result_count: pictures that an earlier run wrote, which are left out.
        heic_count: HEIC pictures that cannot be read without pillow-heif, which are left out.
    """

    images: list[ImageFile] = field(default_factory=list)
    result_count: int = 0
    heic_count: int = 0

    def say_what_is_left_out(self) -> None:
        """Print a line for each kind of file that is passed over, so that nobody misses it."""
        if self.result_count:
            print(f"left out, as results of an earlier run: {self.result_count}", file=sys.stderr)
        if self.heic_count:
            print(f"left out, as HEIC (to read it: pip install pillow-heif): {self.heic_count}", file=sys.stderr)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The paths that :func:`search_images` finds; says what it left out."""
    search = search_images(arguments)
    search.say_what_is_left_out()
    return [image.path for image in search.images]


def search_images(arguments: Sequence[str]) -> ImageSearch:
    """The image files of files, folders and glob patterns.

    Of folders, subfolders are searched, too. Left out are hidden files and folders, such as the ``._photo.jpg`` of
    macOS, and what an earlier run wrote; a file that is named itself is always taken.

    Raises:
        UserError: an argument that has no image.
    """
    refuse_split_names(arguments)
    search = ImageSearch()
    paths: set[Path] = set()
    for argument in arguments:
        try:
            images = _images_of(argument, search)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{argument[:80]} cannot be read ({reason}); check its name") from error
        if not images:
            raise UserError(f"no image at {argument[:400]}; {_remedy(search)}")
        for image in images:
            if image.path not in paths:
                paths.add(image.path)
                search.images.append(image)
    return search


def _remedy(search: ImageSearch) -> str:
    if search.heic_count:
        return "its HEIC pictures need pillow-heif: pip install pillow-heif"
    if search.result_count:
        return "its pictures are results of an earlier run"
    return "give image files, folders with images or glob patterns"


def _images_of(argument: str, search: ImageSearch) -> list[ImageFile]:
    """The images of one argument; counts in ``search`` what is left out."""
    path = user_path(argument)
    if path.is_dir():
        return [
            ImageFile(file, file.parent.relative_to(path)) for file in _files_below(path) if _is_image(file, search)
        ]
    # A file may have a name that looks like a pattern: [1].jpg.
    if path.exists():
        return [ImageFile(path)] if path.is_file() else []
    images = []
    # Sorted, since file systems list names in orders of their own.
    for name in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
        file = Path(name)
        if file.is_file() and not is_result(file):
            images.append(ImageFile(file))
        elif file.is_file():
            search.result_count += 1
    return images


def _files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and its subfolders in order, without hidden ones; a folder that links to itself ends."""
    # Links are followed: photos are often kept on another disk.
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        # os.walk goes into the folders that are left in this list, in its order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)


def _is_image(file: Path, search: ImageSearch) -> bool:
    """Whether a file of a folder is to be segmented; counts those that are left out."""
    suffix = file.suffix.lower()
    if suffix in HEIC_SUFFIXES and importlib.util.find_spec("pillow_heif") is None:
        search.heic_count += 1
        return False
    if suffix not in (*IMAGE_SUFFIXES, *HEIC_SUFFIXES) or not file.is_file():
        return False
    if is_result(file):
        search.result_count += 1
        return False
    return True


def refuse_split_names(arguments: Sequence[str]) -> None:
    """Raise a UserError where several arguments are the one name of a file or folder that exists."""
    for first, argument in enumerate(arguments[:MAX_SPLIT_NAMES]):
        if is_there(argument):
            continue
        for end in range(first + 2, min(len(arguments), first + MAX_SPLIT_NAMES) + 1):
            name = " ".join(arguments[first:end])
            if is_there(name):
                raise UserError(f"no image at {argument}; put quotes around a name with blanks: {shlex.quote(name)}")


def tells_where_images_are(argument: str) -> bool:
    """Whether an argument says where images are: a file, a folder or a pattern that exists, or a picture's suffix."""
    is_picture = Path(argument).suffix.lower() in (*IMAGE_SUFFIXES, *HEIC_SUFFIXES)
    return is_picture or is_there(argument) or any(glob.iglob(argument, recursive=True))  # noqa: PTH207


def is_there(argument: str) -> bool:
    """Whether there is a file of this name; False for a name that no file can have."""
    try:
        return user_path(argument).exists()
    except (OSError, ValueError):
        return False


def is_result(file: Path) -> bool:
    """Whether an earlier run wrote this picture: the facts of its label map are beside it, or it is a map of labels."""
    if file.suffix.lower() in (".tif", ".tiff") and is_label_map(file):
        return True
    # A name alone says nothing: somebody's own photo may be called "a_labels.png".
    for ending in RESULT_PICTURES:
        if file.stem.endswith(ending):
            facts = file.with_name(file.stem.removesuffix(ending) + RESULT_FACTS)
            return read_facts(facts) is not None
    return False


def read_facts(path: Path) -> dict | None:
    """The facts of a label map as an earlier run wrote them; None if there are none."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(facts, dict) and {"image", "labels", "classes"} <= facts.keys():
        return facts
    return None
