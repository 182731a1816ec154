"""The web page: what it computes, and how it behaves in a real browser; nothing leaves the machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from clearclip.demo.command import main, parser
from clearclip.errors import UserError
from clearclip.miniature import CLASSES

ROOT = Path(__file__).resolve().parent.parent


def test_says_how_to_install_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "clearclip.demo.web", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install -U gradio"):
        main(["--web"])
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="5.49.1", Blocks=None))
    with pytest.raises(UserError, match=r"gradio 5\.49\.1 is too old.*pip install -U gradio"):
        main(["--web"])
    del sys.modules["clearclip.demo.web"]


def test_honours_the_options(quick_name: str, tmp_path: Path) -> None:
    gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    from clearclip.demo.web import Page

    Image.new("RGB", (60, 40), "green").save(tmp_path / "a.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    (tmp_path / "names.txt").write_text("sky, clouds\ngrass\n")
    options = f"--web {tmp_path} --name-path {tmp_path / 'names.txt'} --model {quick_name} --model-type SCLIP"
    page = Page(parser().parse_args([*options.split(), "--ignore-residual", "--prob-thd", "0.01"]), tmp_path)
    assert page.words == "background, sky, grass" and page.prob_thd == 0.01
    assert next(iter(page.methods)) == "SCLIP + ClearCLIP" and {"CLIP", "GEM + ClearCLIP"} < set(page.methods)
    assert page.images == [tmp_path / "a.png", tmp_path / "b.png"] and list(page.models) == [quick_name]

    overlay, slider, maps, files = page.run(str(page.images[0]), page.words, "SCLIP + ClearCLIP", 0.01, quick_name)
    note = json.loads(Path(files[-1]).read_text())
    assert [entry["words"] for entry in note["classes"]] == [["background"], ["sky", "clouds"], ["grass"]]
    assert note["method"] == "SCLIP + ClearCLIP" and len(maps) == 4 and "SCLIP + ClearCLIP" in slider["label"]
    _, masks = overlay["value"]
    assert {name.rsplit(" ", 2)[0] for _, name in masks} == {"background", "sky", "grass"}
    assert (sum(mask > 0 for mask, _ in masks) == 1).all(), "every pixel belongs to one class"
    many = ", ".join(f"word {k}" for k in range(300))
    overlay, *_ = page.run(str(page.images[1]), many, "LastBlock", 0, quick_name)
    assert len(overlay["value"][1]) == 48, "more would not fit the page"
    with pytest.raises(gradio.Error, match="unknown method &#x27;Magic&#x27;"):
        page.run(str(page.images[0]), "a, b", "Magic", 0, quick_name)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running page with the miniature."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install gradio")
    folder = tmp_path_factory.mktemp("page")
    with open(folder / "stderr", "wb") as errors:
        command = [sys.executable, str(ROOT / "demo.py"), "--web"]
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
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
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
        self.browser = browser
        browser.set_window_size(1300, 1500)
        browser.get(address)
        self.wait(self.legend)  # the first example is segmented unasked

    def find(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def wait(self, condition: Callable):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, 60, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def legend(self) -> list[str]:
        return [entry.text.strip() for entry in self.find("#overlay .legend button")]

    def upload(self, path: Path) -> None:
        self.find("#image input[type=file]")[0].send_keys(str(path))
        self.wait(lambda: self.find(f"#image img[src*='{path.name}']"))

    def segment(self, words: str) -> None:
        field = self.find("#words textarea")[0]
        field.clear()
        field.send_keys(words)
        self.find("#segment")[0].click()

    def tab(self, name: str, there: Callable) -> None:
        [tab] = [tab for tab in self.find("button[role=tab]") if tab.text == name and tab.is_displayed()]
        tab.click()
        self.wait(there)
        self.picture(name)

    def error(self) -> str:
        toast = self.wait(lambda: self.find(".toast-body.error"))[0]
        self.wait(lambda: toast.text.strip())
        text = toast.text
        toast.find_element("css selector", "button").click()
        self.wait(lambda: not self.find(".toast-body.error"))
        return text

    def picture(self, name: str) -> None:
        """Keep a screenshot, where a folder for these is given."""
        if os.environ.get("CLEARCLIP_SCREENSHOTS"):
            self.browser.save_screenshot(str(Path(os.environ["CLEARCLIP_SCREENSHOTS"]) / f"{name}.png"))


@pytest.fixture
def visitor(page: str, browser) -> Visitor:
    return Visitor(browser, page)


def test_opens_with_an_example_and_fits_a_narrow_window(visitor: Visitor) -> None:
    assert {name.rsplit(" ", 2)[0] for name in visitor.legend()} == set(CLASSES)
    visitor.picture("first")
    before = visitor.find("#overlay .base-image")[0].get_attribute("src")
    visitor.find("button.gallery-item")[1].click()
    visitor.wait(lambda: visitor.find("#overlay .base-image")[0].get_attribute("src") != before)
    visitor.browser.set_window_size(500, 2000)
    visitor.wait(lambda: visitor.browser.execute_script("return document.body.scrollWidth <= window.innerWidth"))
    visitor.picture("narrow")


def test_upload_and_words_give_a_result(visitor: Visitor, tmp_path: Path) -> None:
    Image.effect_noise((256, 192), 90).save(tmp_path / "mine.png")
    visitor.upload(tmp_path / "mine.png")
    visitor.segment("sky, <b>tree</b>, grass")
    visitor.wait(lambda: len(visitor.legend()) == 3)
    assert {name.rsplit(" ", 2)[0] for name in visitor.legend()} == {"sky", "<b>tree</b>", "grass"}
    visitor.tab("Against CLIP", lambda: len(visitor.find("#slider img")) >= 2)
    visitor.tab("Heat maps", lambda: len(visitor.find("#heat button img")) == 3)
    visitor.tab("Files", lambda: len(visitor.find("#files a[download]")) == 3)
    links = [link.get_attribute("download") for link in visitor.find("#files a[download]")]
    assert links == ["mine_segmentation.png", "mine_labels.png", "mine_labels.json"]


def test_mistakes_are_told_in_the_page(visitor: Visitor, tmp_path: Path) -> None:
    visitor.segment("<b>sky</b>")
    assert "'<b>sky</b>' alone" in visitor.error()
    (tmp_path / "broken.png").write_text("this is no image")
    Image.new("1", (10_000, 6_000)).save(tmp_path / "large.png")
    for name, told in (("broken.png", "image broken.png cannot be read"), ("large.png", "exceeds limit of 50000000")):
        visitor.upload(tmp_path / name)
        visitor.segment("sky, tree")
        assert told in visitor.error()


def test_the_page_asks_nobody_else(visitor: Visitor, page: str) -> None:
    asked = set()
    for entry in visitor.browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    web = {address for address in asked if address.startswith(("http:", "https:", "ws:", "wss:"))}
    assert len(web) > 5
    assert {address for address in web if not address.startswith(page)} == set()
