"""The tags of a TIFF's first picture: which bands, bits, colours and coordinates the file says that it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Numbers of tags.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _MAX_SAMPLE, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 274, 277, 281, 284, 338, 339
_PIXEL_SCALE, _TIE_POINTS, _MATRIX, _GEO_KEYS = 33550, 33922, 34264, 34735
# Values of the photometric interpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
#: CIE's L*a*b* in three encodings, and LogL and LogLuv.
OTHER_COLOUR_SPACES = (8, 9, 10, 32844, 32845)
JPEG_COMPRESSION = 7
_SEPARATE_PLANES = 2
_UNSIGNED = 1
# What a band beyond red, green and blue may be: opacity by which colours are multiplied, or are not.
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2


def tiff_tags(file: BinaryIO, head: bytes) -> Mapping[int, Any]:
    """The tags of a TIFF's first picture by their numbers, as they are stored.

    Args:
        file: opened for reading bytes.
        head: its first bytes, 16 at least.

    Raises:
        Exception: of any kind, where they are damaged.
    """
    # BigTIFF has a plus sign for a star, and offsets of eight bytes.
    is_big = b"+" in head[2:4]
    directory = ImageFileDirectory_v2(head[:16] if is_big else head[:8])
    file.seek(directory.next)
    directory.load(file)
    return directory


class TiffDescription:
    """What the tags of a TIFF mean, with the defaults of the standard for those that are left out.

    Args:
        tags: of :func:`tiff_tags`.

    Attributes:
        bits: of each sample.
        samples: how many values a pixel has.
        photometric: what they mean, such as ``RGB``; None where the file does not say.
        extra_samples: what those beyond the colours mean.
        compression: the number of the codec.
        has_planes: each band is stored in a plane of its own.
        orientation: as in EXIF, 1 to 8; any number in a damaged file.
        size: width and height.
    """

    def __init__(self, tags: Mapping[int, Any]):
        self._tags = tags
        self.bits = self._numbers(_BITS, 1)
        self.samples: int = tags.get(_SAMPLES, 1)
        self.photometric: int | None = tags.get(_PHOTOMETRIC)
        self.extra_samples = self._numbers(_EXTRA_SAMPLES, ())
        self.compression: int = tags.get(_COMPRESSION, 1)
        self.has_planes = self.samples > 1 and tags.get(_PLANAR, 1) == _SEPARATE_PLANES
        self.orientation: int = tags.get(_ORIENTATION, 1)
        self.size = (int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0)))

    def _numbers(self, tag: int, default: Any) -> tuple[int, ...]:
        """A tag's value as a tuple; the standard stores a single number without one."""
        value = self._tags.get(tag, default)
        if isinstance(value, tuple | list):
            return tuple(value)
        return (value,)

    @property
    def is_transposed(self) -> bool:
        """Whether the orientation exchanges rows and columns."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def is_georeferenced(self) -> bool:
        """Whether the file has coordinates."""
        return any(tag in self._tags for tag in (_PIXEL_SCALE, _TIE_POINTS, _MATRIX, _GEO_KEYS))

    @property
    def is_unsigned(self) -> bool:
        """Whether all samples are whole numbers without a sign."""
        return set(self._numbers(_SAMPLE_FORMAT, _UNSIGNED)) == {_UNSIGNED}

    @property
    def has_alpha(self) -> bool:
        """Whether the first band beyond the colours is said to be opacity."""
        return self.extra_samples[:1] in ((_ASSOCIATED_ALPHA,), (_UNASSOCIATED_ALPHA,))

    @property
    def is_grey_with_alpha(self) -> bool:
        """Whether it is a grey band, 0 being black, and opacity that is not multiplied into it."""
        has_two_bands = self.photometric == BLACK_IS_ZERO and self.samples == 2
        return has_two_bands and self.extra_samples[:1] == (_UNASSOCIATED_ALPHA,)

    @property
    def depth(self) -> int | None:
        """Bits that a sample uses, where they are fewer than those of its type, 8 or 16; else None."""
        first_format = self._numbers(_SAMPLE_FORMAT, _UNSIGNED)[0]
        if len(set(self.bits)) != 1 or first_format != _UNSIGNED:
            return None
        depth = self.bits[0]
        # Cameras of 10, 12 and 14 bits store 16, and state the largest level that they can reach.
        largest_level = max(self._numbers(_MAX_SAMPLE, 0))
        if depth == 16 and 255 <= largest_level < 32768:
            depth = int(largest_level).bit_length()
        if depth in (8, 16, 32, 64):
            return None
        return depth
