"""The web page in a real browser: upload, words, result, errors; nothing leaves the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clearclip.errors import UserError
from clearclip.miniature import CLASSES, PALETTE

ROOT = Path(__file__).resolve().parent.parent


def test_says_how_to_install_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearclip.demo.command import main

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install gradio"):
        main(["--web"])
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="5.49.1"))
    with pytest.raises(UserError, match=r"gradio 5\.49\.1 is too old.*pip install -U gradio"):
        main(["--web"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running page with the miniature."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    folder = tmp_path_factory.mktemp("page")
    command = [sys.executable, str(ROOT / "demo.py"), "--web"]
    with open(folder / "stderr", "wb") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("page: http://127.0.0.1:"), line + (folder / "stderr").read_text()
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Headless Chromium, with a log of what it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser for this test: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1300,1500",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


class Visitor:
    """A person at the page."""

    def __init__(self, browser, address: str):
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        self.by, self.browser = By.CSS_SELECTOR, browser
        self.wait = WebDriverWait(browser, 90)
        browser.get(address)
        self.wait.until(lambda _: self.find("#segment"))

    def find(self, selector: str) -> list:
        return self.browser.find_elements(self.by, selector)

    def upload(self, path: Path) -> None:
        self.wait.until(lambda _: self.find("#image input[type=file]"))[0].send_keys(str(path))
        self.wait.until(lambda _: self.find("#image img"))
        time.sleep(1)  # the preview comes before the upload has ended

    def write(self, words: str) -> None:
        field = self.find("#words textarea")[0]
        field.clear()
        field.send_keys(words)

    def segment(self) -> None:
        self.find("#segment")[0].click()

    def tab(self, name: str) -> None:
        [tab] = [tab for tab in self.find("button[role=tab]") if tab.text == name and tab.is_displayed()]
        tab.click()

    def error(self) -> str:
        toast = self.wait.until(lambda _: self.find(".toast-body.error"))[0]
        self.wait.until(lambda _: toast.text.strip())
        text = toast.text
        self.picture("error")
        toast.find_element(self.by, "button").click()
        self.wait.until(lambda _: not self.find(".toast-body.error"))
        return text

    def picture(self, name: str) -> None:
        """Keep a screenshot, where a folder for these is given."""
        if os.environ.get("CLEARCLIP_SCREENSHOTS"):
            self.browser.save_screenshot(str(Path(os.environ["CLEARCLIP_SCREENSHOTS"]) / f"{name}.png"))


@pytest.fixture
def visitor(page: str, browser) -> Visitor:
    return Visitor(browser, page)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    path = tmp_path / "my photo.png"
    Image.fromarray(noise).resize((256, 192)).save(path)
    return path


def test_upload_and_words_give_a_result(visitor: Visitor, photo: Path) -> None:
    visitor.upload(photo)
    visitor.write("sky, <b>tree</b>, grass")
    visitor.segment()
    legend = visitor.wait.until(lambda _: visitor.find("#legend .legend"))[0]
    names = [" ".join(entry.text.split()) for entry in legend.find_elements(visitor.by, "span")]
    assert {name.rsplit(" ", 2)[0] for name in names} == {"sky", "<b>tree</b>", "grass"}, names
    assert sum(float(name.split()[-2].lstrip("<")) for name in names) == pytest.approx(100, abs=0.3)
    overlay = visitor.wait.until(lambda _: visitor.find("#overlay img"))[0]
    visitor.wait.until(lambda _: overlay.get_property("naturalWidth"))
    assert overlay.get_property("naturalWidth") == 768  # 256 pixels, enlarged by a whole factor
    visitor.picture("result")

    visitor.tab("CLIP | ClearCLIP")
    visitor.wait.until(lambda _: len(visitor.find("#slider img")) >= 2)
    time.sleep(0.5)
    visitor.picture("slider")
    visitor.tab("Heat maps")
    visitor.wait.until(lambda _: len(visitor.find("#heat button img")) == 3)
    time.sleep(0.5)
    visitor.picture("heatmaps")
    visitor.tab("Files")
    links = visitor.wait.until(lambda _: visitor.find("#files a[download]"))
    fetched = {link.get_attribute("download"): link.get_attribute("href") for link in links}
    visitor.picture("files")
    assert sorted(fetched) == ["my photo_labels.json", "my photo_labels.png", "my photo_segmentation.png"]
    note = json.loads(fetch(visitor.browser, fetched["my photo_labels.json"]))
    assert [entry["name"] for entry in note["classes"]] == ["sky", "<b>tree</b>", "grass"]
    assert sum(entry["pixels"] for entry in note["classes"]) == 256 * 192


def test_an_example_is_segmented_in_its_own_colours(visitor: Visitor) -> None:
    # The first click may come before the page listens.
    visitor.wait.until(lambda _: visitor.find("#image img") or visitor.find("tr.tr-body")[0].click())
    visitor.wait.until(lambda _: "balloon" in visitor.find("#words textarea")[0].get_property("value"))
    visitor.segment()
    visitor.wait.until(lambda _: visitor.find("#legend .legend"))
    visitor.wait.until(lambda _: visitor.find("#overlay img"))
    entries = {" ".join(entry.text.split()[:-2]): entry for entry in visitor.find("#legend .legend span")}
    assert set(entries) == set(CLASSES)
    for name, colour in zip(CLASSES, PALETTE, strict=True):
        swatch = entries[name].find_element(visitor.by, "i").value_of_css_property("background-color")
        assert [int(value) for value in re.findall(r"\d+", swatch)[:3]] == list(colour)
    visitor.picture("example")
    visitor.tab("CLIP | ClearCLIP")
    visitor.wait.until(lambda _: len(visitor.find("#slider img")) >= 2)
    time.sleep(0.5)
    visitor.picture("example_slider")
    visitor.tab("Heat maps")
    visitor.wait.until(lambda _: len(visitor.find("#heat button img")) == len(CLASSES))
    time.sleep(0.5)
    visitor.picture("example_heatmaps")


def fetch(browser, address: str) -> str:
    return browser.execute_async_script(
        "const done = arguments[1]; fetch(arguments[0]).then(r => r.text()).then(done)", address
    )


def test_an_unreadable_file_and_bad_words_are_told_in_the_page(visitor: Visitor, photo: Path, tmp_path: Path) -> None:
    visitor.segment()
    assert "no image yet" in visitor.error()
    broken = tmp_path / "broken.png"
    broken.write_text("this is no image")
    visitor.upload(broken)
    visitor.segment()
    message = visitor.error()
    assert "broken.png cannot be read: it is no image" in message and str(tmp_path) not in message


def test_too_many_pixels_are_refused(visitor: Visitor, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (10_000, 6_000)).save(large)
    visitor.upload(large)
    visitor.segment()
    assert "more than 50 million pixels" in visitor.error()


def test_bad_words_are_told(visitor: Visitor, photo: Path) -> None:
    visitor.upload(photo)
    visitor.write("sky,,<b>tree</b>")
    visitor.segment()
    assert "empty word in 'sky,,<b>tree</b>'" in visitor.error()
    visitor.write("sky")
    visitor.segment()
    assert "at least two words" in visitor.error()


def test_large_files_are_refused_by_the_server(page: str) -> None:
    import urllib.error
    import urllib.request

    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(26 * 2**20)
    request = urllib.request.Request(
        page + "gradio_api/upload",
        body + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413


def test_the_page_asks_nobody_else(visitor: Visitor, page: str) -> None:
    time.sleep(2)
    asked = set()
    for entry in visitor.browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    web = {address for address in asked if address.startswith(("http:", "https:", "ws:", "wss:"))}
    assert len(web) > 5
    assert {address for address in web if not address.startswith(page)} == set()
