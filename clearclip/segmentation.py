"""What :meth:`clearclip.ClearCLIP.segment` returns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clearclip import formats, visualize
from clearclip.rasters.geojson import write_polygons
from clearclip.rasters.georeference import Georeference
from clearclip.rasters.geotiff import write_label_map
from clearclip.text import TextFeatures
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_bytes
from clearclip.utils.validators import choice
from clearclip.windows import Readout, ScoreMap

#: What the colours of heat maps mean: see :meth:`Segmentation.heat_maps`.
HEAT_MAP_SCALES = ("shared", "word")


class Segmentation:
    """An image and its labels, as :meth:`ClearCLIP.segment` returns them.

        result.shares["sky"]  # 0.38
        result.similarity_map("hill").max()  # cosine similarity of a word, place by place
        result.save("picture.png"), result.save_labels("labels.png")

    Attributes:
        image: (H, W, 3) uint8 RGB, at its original size.
        labels: (H, W) uint8 (uint16 beyond 256 classes): the index of each pixel's class.
        classes: the classes' names, in label order.
        words: the words of each class, in label order.
        class_pixels: how many pixels each class has, (classes,) int64.
        model, method: labels of what computed them.
        image_name: the image file's name, where it was one; may be set.
        colours: of the classes in the pictures, (classes, 3) RGB; set it to choose others.
        georeference: where the image lies on the earth, of a GeoTIFF; else None.
    """

    def __init__(
        self,
        image: np.ndarray,
        scores: ScoreMap,
        text: TextFeatures,
        readout: Readout,
        model: str = "",
        method: str = "",
    ):
        self.image: NDArray[np.uint8] = image
        self.classes: list[str] = text.classes.names
        self.words: tuple[tuple[str, ...], ...] = text.classes.classes
        self.model = model
        self.method = method
        self.image_name = ""
        # On the CPU: a list of results must not fill a GPU.
        self._scores = scores.to("cpu")
        self._text = text.to(self._scores.device)
        self._readout = readout
        self.colours: visualize.Palette = visualize.class_palette(self.classes)
        self.georeference: Georeference | None = None
        # Where the scores were computed, before they are moved: a GPU does it faster.
        labels = readout.labels(scores, image.shape[:2], text.word_to_class).cpu().numpy()
        # The smallest type that has an id for each class, as label maps in files have.
        label_type = np.uint8 if len(self.classes) <= 256 else np.uint16
        self.labels: NDArray[np.uint8 | np.uint16] = labels.astype(label_type)
        self.class_pixels: NDArray[np.int64] = np.bincount(self.labels.ravel(), minlength=len(self.classes))

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(classes, H, W) float32, computed when first asked for."""
        return self._readout.probabilities(self._scores, self.image.shape[:2], self._text.word_to_class).numpy()

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image that each class covers, 0 to 1, in label order."""
        return dict(zip(self.classes, (self.class_pixels / self.labels.size).tolist(), strict=True))

    @property
    def masks(self) -> Mapping[str, NDArray[np.bool_]]:
        """For each class's name the pixels that have it, (H, W) bool; each mask is made when it is asked for.

        result.image[result.masks["sky"]] = 0  # paints the sky black
        """
        return ClassMasks(self.labels, self.classes)

    @property
    def similarity_range(self) -> tuple[float, float]:
        """The scale of :meth:`heat_maps`: from the smallest similarity, or 0 if that is negative, to the largest."""
        low = float(self._scores.scores.min())
        high = float(self._scores.scores.max())
        # Negative similarities all mean "not there", and would take half of the colours.
        if high > 0:
            low = max(0.0, low)
        return low, high

    def similarity_map(self, word: int | str, size: tuple[int, int] | None = None) -> np.ndarray:
        """Score of one word at every pixel: its cosine similarity, or what a method or TLP and LPOSS+ made of it.

        Args:
            word: one of :attr:`words`, or its index among all of them.
            size: height and width of the map; default those of the image.

        Returns:
            (height, width) float32: patches upsampled to windows, windows averaged where they overlap.

        Raises:
            UserError: the word is none of those that were asked for.
        """
        words = self._text.classes.words
        # A word of two classes is there twice with the same map, so the first one will do.
        if isinstance(word, str) and word in words:
            word = words.index(word)
        if isinstance(word, str) or not -len(words) <= word < len(words):
            raise UserError(f"{word!r} is none of this result's words ({', '.join(words[:20])})")
        return self._scores.word_map(word, size or self.image.shape[:2]).numpy()

    def titled_maps(self, size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
        """:meth:`similarity_map` of each word, with its title: the word, its class and its largest similarity."""
        for name, values in self._named_maps(size):
            yield f"{name} · {values.max():.2f}", values

    def _named_maps(self, size: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
        """:meth:`similarity_map` of each word, with the word and, of a further word of a class, the class."""
        index = 0
        for words in self.words:
            for word in words:
                name = word if word == words[0] else f"{word} ({words[0]})"
                # By its number: one word may belong to two classes.
                yield name, self.similarity_map(index, size)
                index += 1

    @property
    def _title(self) -> str:
        return " · ".join(filter(None, (self.model, self.method, self.image_name)))

    @property
    def window_note(self) -> str:
        """What straight edges in the maps are, in a sentence; empty where the image was one window."""
        count = self._scores.grid.count
        if count == 1:
            return ""
        return f"straight edges are where one of {count} overlapping windows ends"

    def overlay(self, opacity: float = 0.55) -> Image.Image:
        """The image with its classes painted over it, at the original size."""
        return visualize.overlay(self.image, self.labels, self.colours, opacity)

    def page(self) -> visualize.PageLayout:
        """What :meth:`picture` draws, as a page that can be written as SVG or PDF, too."""
        return visualize.result_page(self.image, self.labels, self.classes, self.colours, self._title)

    def picture(self) -> Image.Image:
        """Photo, overlay and map side by side, with a legend that names each colour and its share."""
        return self.page().draw()

    def heat_maps(self, scale: str = "shared") -> Image.Image:
        """A similarity map for each word.

        Args:
            scale: "shared", by which words can be compared, or "word": each map from its own smallest value to its
                largest, by which places can be compared that differ little.
        """
        return self.heat_map_page(scale).draw()

    def heat_map_page(self, scale: str = "shared") -> visualize.PageLayout:
        """What :meth:`heat_maps` draws, as a page that can be written as SVG or PDF, too."""
        scale = choice(*HEAT_MAP_SCALES)("scale", scale)
        columns = 4 if len(self._text.classes.words) < 16 else 8
        photo = visualize.fit(self.image, 2000 // columns)
        panels = [("image", photo)]
        if scale == "word":
            bar = None
            for name, values in self._named_maps(photo.shape[:2]):
                low, high = float(values.min()), float(values.max())
                panels.append((f"{name} · {low:.2f} to {high:.2f}", visualize.heat_map(photo, values, low, high)))
            meaning = "cosine similarity, each map from its smallest value (dark) to its largest (bright)"
        else:
            bar = self.similarity_range
            for title, values in self.titled_maps(photo.shape[:2]):
                panels.append((title, visualize.heat_map(photo, values, *bar)))
            meaning = "cosine similarity, all maps on one scale; the number after a word is its maximum"
        note = "; ".join(filter(None, (meaning, self.window_note)))
        return visualize.sheet_page(panels, columns, note=note, title=self._title, scale=bar)

    def save(self, path: str | Path) -> Path:
        """Write the result, whole or not at all; the suffix says what.

        - .png, .jpg and other image formats: the picture of :meth:`picture`;
        - .svg, .pdf: the same, for papers;
        - .json: COCO's annotations (:meth:`to_coco`);
        - .zip: masks for CVAT ("Segmentation mask 1.1");
        - .tif: a map (:meth:`save_map`).

        :meth:`save_labels` writes the label map itself.

        Raises:
            UserError: another suffix, a result that the format cannot hold, or a place that cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            text = json.dumps(self.to_coco(), ensure_ascii=False)
            # A file's name may have bytes that are no text, which Python holds as lone surrogates.
            return write_bytes(path, text.encode(errors="backslashreplace"))
        if suffix == ".zip":
            return formats.write_cvat_masks(path, [(self._file_name, self.labels)], self.classes, self._palette)
        if suffix in (".tif", ".tiff"):
            return self.save_map(path)
        return visualize.save_image(self.page(), path)

    def save_map(self, path: str | Path, polygons: bool = False) -> Path:
        """Write the labels as a GeoTIFF, with ``polygons`` also their areas as GeoJSON beside it.

        Raises:
            UserError: rasterio is missing, or a place that cannot be written.
        """
        colours = visualize.class_palette(self.classes, self.colours)
        written = write_label_map(path, [self.labels], self.labels.shape, self.classes, colours, self.georeference)
        if polygons:
            write_polygons(written, written.with_suffix(".geojson"), self.classes, colours)
        return written

    def save_labels(self, path: str | Path, palette: bool = True) -> Path:
        """Write the labels as a PNG or TIFF whose pixels are the class ids (8 bits, 16 beyond 256 classes).

        Args:
            path: .png or .tif.
            palette: store the classes' colours, too, so that viewers show them; ids stay what Pillow, MMSegmentation
                and annotation tools read. OpenCV reads the colours in place of the ids: for it write grey values,
                ``palette=False``. Ids of more than 256 classes are always grey values.

        Raises:
            UserError: another suffix, such as .jpg, which would change ids; or a place that cannot be written.
        """
        # A palette has at most 256 colours.
        if palette and len(self.classes) <= 256:
            return visualize.save_image(visualize.palette_image(self.labels, self._palette), path, lossless=True)
        return visualize.save_image(self.labels, path, lossless=True)

    def to_coco(self, polygons: bool = False) -> dict[str, Any]:
        """The classes as COCO's annotations, one for each class that occurs; category ids are labels plus 1.

        Args:
            polygons: write masks of one part and without holes as polygons, others as run lengths (RLE); False: all
                as run lengths.

        Returns:
            "images", "annotations" and "categories", to be written as JSON. Several images: :mod:`clearclip.formats`.
        """
        return formats.coco_dataset([(self._file_name, self.labels)], self.classes, polygons)

    def to_supervision(self) -> Any:
        """The classes as ``supervision.Detections``: a mask for each class that occurs, with its name and label.

        Raises:
            UserError: the supervision package is not installed.
        """
        return formats.to_detections(self.labels, self.classes)

    @property
    def _file_name(self) -> str:
        return self.image_name or "image.png"

    @property
    def _palette(self) -> NDArray[np.uint8]:
        return visualize.class_palette(self.classes, self.colours)

    def _repr_png_(self) -> bytes:
        return self.picture()._repr_png_()

    def __repr__(self) -> str:
        height, width = self.labels.shape
        largest_first = sorted(self.shares.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{name} {share:.0%}" for name, share in largest_first[:3])
        ellipsis = ", …" if len(self.classes) > 3 else ""
        noun = "class" if len(self.classes) == 1 else "classes"
        return f"Segmentation({width} × {height} pixels, {len(self.classes)} {noun}: {shares}{ellipsis})"


class ClassMasks(Mapping[str, NDArray[np.bool_]]):
    """The mask of each class by its name, made from the label map when it is asked for."""

    def __init__(self, labels: np.ndarray, names: Sequence[str]):
        self._labels = labels
        self._label_by_name = {name: label for label, name in enumerate(names)}

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        if name not in self._label_by_name:
            raise KeyError(f"{name!r} is none of this result's classes ({', '.join(list(self)[:20])})")
        return self._labels == self._label_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._label_by_name)

    def __len__(self) -> int:
        return len(self._label_by_name)


def compare_picture(results: Mapping[str, Segmentation], truth: np.ndarray | None = None) -> Image.Image:
    """The maps that several methods give of one image, side by side.

        compare_picture(model.compare("photo.jpg", ["sky", "horse"], ["CLIP", "ClearCLIP"])).save("compare.png")

    Args:
        results: by their titles, such as the methods' names; all of the same image and classes, as
            :meth:`ClearCLIP.compare` gives them.
        truth: the ground truth, (H, W) class ids (others are grey); it is drawn beside the image.
    """
    return comparison_page(results, truth).draw()


def comparison_page(results: Mapping[str, Segmentation], truth: np.ndarray | None = None) -> visualize.PageLayout:
    """What :func:`compare_picture` draws, as a page that can be written as SVG or PDF, too."""
    first = next(iter(results.values()))
    panel_by_title = {"image": first.image}
    if truth is not None:
        panel_by_title["ground truth"] = truth
    titles = [*panel_by_title, *results]
    panels = [*panel_by_title.values(), *(result.labels for result in results.values())]
    columns = _column_count(len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    legend = list(zip(first.classes, visualize.class_palette(first.classes, first.colours), strict=True))
    title = " · ".join(filter(None, (first.model, first.image_name)))
    return visualize.grid_page(rows, titles, legend, title, note=first.window_note)


def _column_count(panel_count: int) -> int:
    """As many columns as leave the fewest places empty in the last row; of equals the most."""
    # Many panels in few columns would be a page that is higher than any screen.
    choices = (6, 5, 4) if panel_count > 9 else (5, 4, 3, 2)
    return min(choices, key=lambda columns: -panel_count % columns)
