"""Masks: the ids that a file stores, whatever decoders do to grey levels; formats by a list; tables of labels."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from storages import encoded, tifffile, write_raster

from clearclip.evaluation.datasets import MappedDataset
from clearclip.evaluation.mask_loading import MASK_FORMATS, decode_mask, label_table

IDS = np.array([[0, 1, 2, 3, 1], [3, 2, 1, 0, 2]], np.uint8)


def grey_png(bits: int, ids: np.ndarray) -> bytes:
    """A PNG of grey levels with so few bits, byte by byte as its specification says."""
    rows = b""
    for row in ids:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("backend", ["pillow", "cv2"])
def test_grey_png_of_few_bits(bits: int, backend: str) -> None:
    ids = np.minimum(IDS, 2**bits - 1)
    np.testing.assert_array_equal(decode_mask(grey_png(bits, ids), backend), ids)


@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_tiff_of_few_bits(bits: int, photometric: str, tmp_path: Path) -> None:
    ids = np.minimum(IDS, min(255, 2**bits - 1)).astype(np.uint16 if bits == 16 else np.uint8)
    write_raster(tmp_path / "a.tif", ids[None], nbits=bits, photometric=photometric)
    data = (tmp_path / "a.tif").read_bytes()
    np.testing.assert_array_equal(decode_mask(data, "pillow"), ids)
    if bits in (1, 8, 16):  # others it does not read
        np.testing.assert_array_equal(decode_mask(data, "cv2"), ids)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_palettes_of_few_bits(bits: int) -> None:
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([9, 8, 7, 200, 100, 50, 1, 2, 3, 4, 5, 6])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=bits)
    np.testing.assert_array_equal(decode_mask(buffer.getvalue(), "pillow"), IDS)


def test_tifffile_s_order_of_colours(tmp_path: Path) -> None:
    """A class by its colour, whichever decoder reads the mask."""
    red, blue = [255, 0, 0], [0, 0, 255]
    colours = np.array([red, blue], np.uint8)[IDS % 2]
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    dataset = MappedDataset(colours=[red, blue], metainfo=dict(classes=["a", "b"]), lazy_init=True, test_mode=True)
    for backend in ("pillow", "cv2", "tifffile"):
        ids = dataset.mask_ids(decode_mask((tmp_path / "a.tif").read_bytes(), backend))
        np.testing.assert_array_equal(ids, IDS % 2, err_msg=backend)


def test_no_mask_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    for backend in ("pillow", "cv2", "tifffile"):
        with pytest.raises(ValueError, match="no mask of a known kind, PNG, TIFF"):
            decode_mask(encoded(IDS, "EPS"), backend)
    assert not (tmp_path / "started").exists()


def test_only_formats_that_are_listed_are_tried() -> None:
    Image.init()
    for name in sorted(Image.SAVE.keys() & Image.OPEN.keys()):
        mode = {"XBM": "1", "MSP": "1"}.get(name, "L")
        buffer = io.BytesIO()
        try:
            Image.fromarray(IDS).convert(mode).save(buffer, format=name)
        except (OSError, KeyError, ValueError):  # stubs
            continue
        if name in MASK_FORMATS:
            assert decode_mask(buffer.getvalue(), "pillow").shape == IDS.shape
        else:
            with pytest.raises(ValueError, match=r"no mask of a known kind|may change ids"):
                decode_mask(buffer.getvalue(), "pillow")


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_formats_that_change_ids(name: str) -> None:
    with pytest.raises(ValueError, match=f"it is a {name}, which may change ids; save masks as PNG"):
        decode_mask(encoded(IDS, name), "pillow")


def test_masks_that_cannot_be_meant(tmp_path: Path) -> None:
    for values, message in ((IDS.astype(np.int16) - 1, "no ids of 16 bits|below 0"),
                            (IDS.astype(np.float32) + 0.5, "no ids of 16 bits")):  # fmt: skip
        tifffile.imwrite(tmp_path / "a.tif", values)
        with pytest.raises(ValueError, match=message):
            decode_mask((tmp_path / "a.tif").read_bytes(), "pillow")
    tifffile.imwrite(tmp_path / "a.tif", IDS, extratags=[(274, "H", 1, 6, True)])
    with pytest.raises(ValueError, match="its orientation tag turns it"):
        decode_mask((tmp_path / "a.tif").read_bytes(), "pillow")


@pytest.mark.parametrize("reduce", [False, True])
def test_label_table_against_a_loop(reduce: bool) -> None:
    """Id after id, as MMSegmentation's LoadAnnotations says."""
    classes, ignore, label_map = 5, 255, {0: 0, 1: 255, 2: 1, 3: 2, 4: 3}
    table, is_allowed = label_table(classes, ignore, reduce, tuple(label_map.items()), 8)
    for mask_id in range(256):
        label = mask_id
        if reduce:
            label = 255 if mask_id in (0, 255) else mask_id - 1
        label = label_map.get(label, label)
        assert is_allowed[mask_id] == (label < classes or label == ignore), mask_id
        if is_allowed[mask_id]:
            assert table[mask_id] == label
