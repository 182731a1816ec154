"""Maps on ``demo.py``'s command line: what has coordinates is segmented at its own resolution, and stays a map."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clearclip.commands.image_search import ImageFile
from clearclip.commands.result_files import ResultNames, largest_shares
from clearclip.map_segmentation import MapSegmentation, segment_map
from clearclip.model import ClearCLIP
from clearclip.rasters.georeference import raster_header
from clearclip.text import ClassWords
from clearclip.utils.errors import UserError
from clearclip.utils.images import pixel_limit
from clearclip.utils.printable import printable


def separate_maps(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
    """The files that are maps, and the others: a map has coordinates, or is a raster too large for a picture."""
    maps = []
    pictures = []
    for image in images:
        if is_map(image.path):
            maps.append(image)
        else:
            pictures.append(image)
    return maps, pictures


def is_map(path: Path) -> bool:
    """Whether a file has coordinates, or is a raster of more pixels than a picture may have."""
    # The header alone: the raster may be larger than the memory.
    header = raster_header(path)
    if header is None:
        return False
    width, height = header.size or (0, 0)
    return header.georeferenced or width * height > pixel_limit()


def picture_options(args: Namespace) -> dict[str, Any]:
    """``--bands`` and ``--levels``, as :func:`~clearclip.utils.images.read_image` takes them."""
    return {"bands": args.bands, "levels": args.levels}


def check_map_options(args: Namespace, maps: Sequence[ImageFile]) -> None:
    """Refuse, before a model is loaded, options that a map would ignore.

    Raises:
        UserError: names the option, and what works in its place.
    """
    if not maps:
        return
    path = maps[0].path
    if args.compare is not None or args.heatmaps or args.heatmap_scale:
        raise UserError(f"{path} is a map, of which --compare and --heatmaps make no picture; leave them out")
    if args.coco or args.cvat:
        # Annotation tools have pictures of a size that fits a screen, and COCO knows no coordinates.
        raise UserError(
            f"{path} is a map, of which --coco and --cvat make no annotations; its areas are written by --polygons "
            "(GeoJSON); give pictures in a command of their own"
        )
    # Options of the model that were not given are no attributes of args.
    if {"short_side", "long_side"} & vars(args).keys():
        warnings.warn(
            f"{path} is a map, which is segmented at its own resolution: --short-side and --long-side are for pictures",
            stacklevel=2,
        )
    if args.format != "png":
        warnings.warn(f"{path} is a map, whose labels are a GeoTIFF: --format is for pictures", stacklevel=2)


def segment_maps(
    args: Namespace, model: ClearCLIP, maps: Sequence[ImageFile], classes: ClassWords
) -> list[dict[str, Any]]:
    """Segment maps one after the other; what could not be read is said, and the others are segmented all the same.

    Returns:
        For each map that was segmented a row of the table of shares, as
        :func:`~clearclip.commands.result_files.write_shares` takes it.
    """
    rows: list[dict[str, Any]] = []
    names = ResultNames(args.out, occupied={image.path.resolve() for image in maps})
    for image in maps:
        labels_path = Path(f"{names.stem_for(image)}_labels.tif")
        try:
            result = segment_map(
                model,
                image.path,
                classes,
                labels_path,
                polygons=args.polygons,
                progress=True,
                skip_existing=args.skip_existing,
                **picture_options(args),
            )
        except UserError as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            continue
        _report(result)
        rows.append(_shares_row(image.path, result))
    return rows


def _shares_row(path: Path, result: MapSegmentation) -> dict[str, Any]:
    """What the table of shares says of a map: shares are of the pixels with data."""
    height, width = result.size
    classes = [{"name": name, "share": share} for name, share in result.shares.items()]
    return {"image": str(path), "width": width, "height": height, "classes": classes}


def _report(result: MapSegmentation) -> None:
    for remark in result.remarks:
        print(f"warning: {printable(remark)}", file=sys.stderr)
    shares = largest_shares(result.shares)
    if result.was_there:
        print(printable(f"{result.path}  ({shares}); is there"), flush=True)
    else:
        coordinates = "coordinates, palette and class names are those of the map"
        print(printable(f"{result.path}  ({shares}); {coordinates}"), flush=True)
    if result.polygons_path is not None:
        print(f"{printable(result.polygons_path)}  ({result.polygon_count:,} polygons)", flush=True)
