"""Which files of a folder are images to be segmented."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearclip.commands.image_search import find_images, search_images
from clearclip.utils.errors import UserError
from clearclip.utils.images import read_image


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A folder as people have it."""
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "b.jpg", "trip/c.JPG", "trip/day 2/a.png"]
    ignored = ["._a.png", ".hidden.jpg", ".thumbnails/a.png", "trip/.cache/x.png"]
    for name in (*names, *ignored):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    Path("photos/notes.txt").write_text("not an image")
    Path("photos/._b.jpg").write_bytes(b"\0\5\x16\7")  # what macOS leaves on other file systems
    Path("photos/folder.jpg").mkdir()
    return [Path("photos", name) for name in names]


def test_folders_with_their_subfolders(photos: list[Path]) -> None:
    search = search_images(["photos"])
    assert [image.path for image in search.images] == photos
    assert [str(image.subfolder) for image in search.images] == [".", ".", "trip", "trip/day 2"]
    assert find_images(["photos/"]) == find_images(["photos", "photos/a.png", "photos/*.png"]) == photos
    Path("photos/again").symlink_to(Path("photos").resolve(), target_is_directory=True)
    assert find_images(["photos"]) == photos, "a folder that links to itself"
    Path("links").mkdir()
    Path("links/elsewhere").symlink_to(Path("photos/trip").resolve(), target_is_directory=True)
    assert len(find_images(["links"])) == 2, "a folder that is linked to is searched"


def test_a_file_that_is_named_is_taken() -> None:
    assert find_images(["photos/.hidden.jpg"]) == [Path("photos/.hidden.jpg")]
    Image.new("RGB", (2, 2)).save("photos/[x].PNG")
    assert find_images(["photos/[x].PNG"]) == [Path("photos/[x].PNG")], "a file that looks like a pattern"


def test_nothing_there() -> None:
    for name in ("nope.jpg", "x" * 5000, "*.bmp"):
        with pytest.raises(UserError, match=rf"no image at {name[:5]}|xxx".replace("*", r"\*")):
            find_images([name])


def test_results_of_an_earlier_run_are_no_images(photos: list[Path], capsys: pytest.CaptureFixture) -> None:
    for kind in ("segmentation", "labels", "heatmaps", "compare"):
        Image.new("RGB", (4, 4)).save(f"photos/a_{kind}.png")
    assert len(find_images(["photos"])) == 8, "without the facts of a label map they may be anybody's"
    Path("photos/a_labels.json").write_text('{"image": "a.png", "labels": "a_labels.png", "classes": []}')
    capsys.readouterr()
    assert find_images(["photos"]) == photos
    assert "results of an earlier run: 4" in capsys.readouterr().err
    assert find_images(["photos/*.png"]) == [Path("photos/a.png")]
    assert find_images(["photos/a_labels.png"]) == [Path("photos/a_labels.png")], "it was named itself"


def test_heic(photos: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Read by its package, or said to need it; never passed over in silence."""
    with monkeypatch.context() as context:
        context.setattr("importlib.util.find_spec", lambda name: None)
        Path("photos/z.HEIC").write_bytes(b"any")
        assert find_images(["photos"]) == photos
        assert "left out, as HEIC (to read it: pip install pillow-heif): 1" in capsys.readouterr().err
        Path("iphone").mkdir()
        Path("iphone/a.heif").write_bytes(b"any")
        with pytest.raises(UserError, match="pip install pillow-heif"):
            find_images(["iphone"])
    if importlib.util.find_spec("pillow_heif") is None:
        pytest.skip("pillow-heif is not installed: pip install pillow-heif")
    import pillow_heif

    picture = np.full((64, 48, 3), (200, 30, 60), np.uint8)
    pillow_heif.from_pillow(Image.fromarray(picture)).save("photos/z.HEIC", quality=95)
    assert find_images(["photos"]) == [*photos[:2], Path("photos/z.HEIC"), *photos[2:]]
    read = read_image("photos/z.HEIC").astype(int)
    assert read.shape == picture.shape and np.abs(read - picture).mean() < 6
