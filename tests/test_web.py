"""The web page: what it computes, and how it behaves in a real browser; nothing leaves the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from clearclip.commands.demo import main, make_parser
from clearclip.miniature import CLASSES
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def test_says_how_to_install_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install -U gradio"):
        main(["--web"])
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="5.49.1", Blocks=None))
    with pytest.raises(UserError, match=r"gradio 5\.49\.1 is too old.*pip install -U gradio"):
        main(["--web"])


def upload(path: Path) -> dict:
    """A file as Gradio hands it over."""
    return {"path": str(path), "orig_name": path.name}


def test_honours_the_options(quick_name: str, tmp_path: Path) -> None:
    gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    from clearclip.commands.web import Page

    Image.new("RGB", (60, 40), "green").save(tmp_path / "a.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    (tmp_path / "names.txt").write_text("sky, clouds\ngrass\n")
    options = f"--web {tmp_path} --name-path {tmp_path / 'names.txt'} --model {quick_name} --model-type SCLIP"
    page = Page(make_parser().parse_args([*options.split(), "--ignore-residual", "--prob-thd", "0.01"]), tmp_path)
    assert page.words == "background, sky | clouds, grass" and page.images == [tmp_path / "a.png", tmp_path / "b.png"]
    assert next(iter(page.methods)) == "SCLIP + ClearCLIP" and {"CLIP", "GEM + ClearCLIP"} < set(page.methods)

    overlay, slider, maps, files = page.run(upload(page.images[0]), page.words, "SCLIP + ClearCLIP")
    note = json.loads(Path(files[-1]).read_text())
    assert [entry["words"] for entry in note["classes"]] == [["background"], ["sky", "clouds"], ["grass"]]
    assert note["method"] == "SCLIP + ClearCLIP" and len(maps) == 4 and "SCLIP + ClearCLIP" in slider["label"]
    _, masks = overlay["value"]
    assert {name.rsplit(" ", 1)[0] for _, name in masks} == {"background", "sky", "grass"}
    assert (sum(mask > 0 for mask, _ in masks) == 1).all(), "every pixel belongs to one class"
    overlay, *_ = page.run(upload(page.images[1]), ", ".join(f"word {k}" for k in range(99)), "LastBlock")
    assert len(overlay["value"][1]) == 48, "more would not fit the page"
    for image in (
        None,
        "a.png",
        upload(Path("/etc/passwd")),
        upload(tmp_path / ".." / "x.png"),
        {"path": "a\0"},
        {"path": "x" * 5000},
        {"path": 7},
        {},
    ):
        with pytest.raises(gradio.Error, match="no image yet"):
            page.run(image, "a, b", "CLIP")
    for words, method, told in (
        ("a, b", "Magic", "unknown method &#x27;Magic&#x27;"),
        ("", "CLIP", "no words given"),
        (" , ", "CLIP", "no words given"),
        ("a|" * 100 + "b", "CLIP", "give at most 100"),
        ("a" * 20_000, "CLIP", "give at most 100"),
        ("a, b", ["CLIP"], "must be text"),
        (7, "CLIP", "must be text"),
    ):
        with pytest.raises(gradio.Error, match=told) as error:
            page.run(upload(page.images[0]), words, method)
        assert not error.value.print_exception


def test_all_methods_are_each_once() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    from clearclip.commands.web import all_methods

    labels = [method.label for method in all_methods()]
    assert labels[:3] == ["CLIP", "ClearCLIP", "MaskCLIP"] and len(set(labels)) == len(labels)
    assert {"MaskCLIP + ClearCLIP", "SCLIP", "SCLIP + ClearCLIP", "GEM", "GEM + ClearCLIP"} <= set(labels)
    assert {"NACLIP", "ClearCLIP + RCS", "NACLIP + RCS", "SC-CLIP"} <= set(labels)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address of a running page with the miniature."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    command = [sys.executable, str(ROOT / "demo.py"), "--web"]
    with (
        open(tmp_path / "stderr", "w") as stderr,
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line.startswith("page: http://127.0.0.1:")
            yield line.split()[1]
        finally:
            process.terminate()  # not SIGINT, which is ignored where a shell runs tests in the background


@pytest.fixture
def browser(tmp_path: Path) -> Iterator:
    """Headless Chromium, with a log of what it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser for this test: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-dev-shm-usage disable-sync "
    flags += f"disable-background-networking disable-component-update user-data-dir={tmp_path}"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_window_size(1300, 1500)
    yield started
    started.quit()


def test_in_a_browser(page: str, browser, tmp_path: Path) -> None:
    """What a visitor does, from the first view to a mistake."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    def find(selector: str) -> list:
        return browser.find_elements("css selector", selector)

    def wait(condition: Callable) -> Any:
        return WebDriverWait(browser, 120, ignored_exceptions=[StaleElementReferenceException]).until(
            lambda _: condition()
        )

    def legend() -> set[str]:
        return {entry.text.strip().rsplit(" ", 1)[0] for entry in find("#overlay .legend button")}

    def picture(name: str) -> None:
        if folder := os.environ.get("CLEARCLIP_SCREENSHOTS"):
            browser.save_screenshot(f"{folder}/{name}.png")

    def segment(file: Path, words: str) -> None:
        find("#image input[type=file]")[0].send_keys(str(file))
        wait(lambda: find(f"#image img[src*='{file.name}']"))
        find("#words textarea")[0].clear()
        find("#words textarea")[0].send_keys(words)
        find("#segment")[0].click()

    browser.get(page)
    wait(lambda: legend() == set(CLASSES))  # the first example is segmented unasked
    picture("first")
    before = find("#overlay .base-image")[0].get_attribute("src")
    find("button.gallery-item")[1].click()
    wait(lambda: find("#overlay .base-image")[0].get_attribute("src") != before)

    Image.effect_noise((256, 192), 90).save(tmp_path / "mine.png")
    segment(tmp_path / "mine.png", "sky, <b>tree</b>, grass")
    wait(lambda: legend() == {"sky", "<b>tree</b>", "grass"})
    tabs = {"Against CLIP": "#slider img", "Heat maps": "#heat button img", "Files": "#files a[download]"}
    for name, shown in tabs.items():
        next(tab for tab in find("button[role=tab]") if tab.text == name and tab.is_displayed()).click()
        wait(lambda shown=shown: len(find(shown)) >= 2)
        picture(name)
    links = [link.get_attribute("download") for link in find("#files a[download]")]
    assert links == ["mine_segmentation.png", "mine_labels.png", "mine_labels.json"]

    (tmp_path / "broken.png").write_text("this is no image")
    segment(tmp_path / "broken.png", "sky, tree")
    told = wait(lambda: find(".toast-body.error"))[0]
    wait(lambda: "image broken.png cannot be read" in told.text)
    find("#words textarea")[0].clear()
    find("#words textarea")[0].send_keys(" ")
    find("#segment")[0].click()
    wait(lambda: any("no words given" in one.text for one in find(".toast-body.error")))
    assert "Traceback" not in (tmp_path / "stderr").read_text(), "a visitor's mistake"
    browser.set_window_size(500, 2000)
    wait(lambda: browser.execute_script("return document.body.scrollWidth <= window.innerWidth"))
    picture("narrow")

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
    asked = {message["params"]["request"]["url"] for message in sent}
    web = {address for address in asked if address.startswith(("http:", "https:", "ws:", "wss:"))}
    assert len(web) > 5 and all(address.startswith(page) for address in web), "the page asks nobody else"
