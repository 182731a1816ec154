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

import numpy as np
import pytest
from PIL import Image

from clearclip import ClearCLIP
from clearclip.commands.demo import demo_command
from clearclip.commands.model_arguments import SCENES
from clearclip.miniature import CLASSES
from clearclip.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_says_how_to_install_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="pip install -U gradio"):
        demo_command(["--web"])
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="5.49.1", Blocks=None))
    with pytest.raises(UserError, match=r"gradio 5\.49\.1 is too old.*pip install -U gradio"):
        demo_command(["--web"])


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
    started.set_window_size(1400, 900)
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
        return {entry.text for entry in find("#legend .legend .name")}

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
    wait(lambda: {"sky", "boat"} <= legend() <= set(CLASSES))  # the first example is segmented unasked
    legend_box = find("#legend .legend")[0].rect
    overlay_box = find("#overlay img")[0].rect
    assert legend_box["x"] > overlay_box["x"] + overlay_box["width"] - 1, "beside the picture"
    assert legend_box["y"] + legend_box["height"] < 900, "on the first screen"
    picture("first")
    before = find("#overlay img")[0].get_attribute("src")
    find("button.gallery-item")[1].click()
    wait(lambda: find("#overlay img")[0].get_attribute("src") != before)

    Image.effect_noise((256, 192), 90).save(tmp_path / "mine.png")
    segment(tmp_path / "mine.png", "sky, <b>tree</b>, grass")
    words = {"sky", "<b>tree</b>", "grass"}
    wait(lambda: legend() and legend() <= words)
    tabs = {"Against CLIP": "#slider img", "Heat maps": "#heat button img", "Files": "#files a[download]"}
    for name, shown in tabs.items():
        next(tab for tab in find("button[role=tab]") if tab.text == name and tab.is_displayed()).click()
        wait(lambda shown=shown: len(find(shown)) >= 2)
        assert legend() and legend() <= words, "in all tabs"
        assert (name != "Heat maps") or find("#scale img")[0].is_displayed(), "a colour bar"
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
    wait(lambda: [one.text for one in find(".toast-body.error") if "no words given" in one.text])
    assert len(find(".toast-body.error")) == 1, "the error before it is gone"
    segment(tmp_path / "mine.png", "sea, <i>tree</i>")
    wait(lambda: legend() <= {"sea", "<i>tree</i>"} and legend())
    wait(lambda: not find(".toast-body.error"))
    assert "Traceback" not in (tmp_path / "stderr").read_text(), "a visitor's mistake"
    browser.set_window_size(500, 2000)
    wait(lambda: browser.execute_script("return document.body.scrollWidth <= window.innerWidth"))
    picture("narrow")

    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
    asked = {message["params"]["request"]["url"] for message in sent}
    web = {address for address in asked if address.startswith(("http:", "https:", "ws:", "wss:"))}
    assert len(web) > 5 and all(address.startswith(page) for address in web), "the page asks nobody else"


def test_one_endpoint_for_programs(page: str, tmp_path: Path) -> None:
    """As docs/use_the_result.md shows it: gradio_client, and curl's three requests."""
    client_module = pytest.importorskip("gradio_client", reason="gradio_client is not installed: pip install gradio")
    client = client_module.Client(page, verbose=False)
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/segment"]
    assert not client.view_api(return_format="dict", print_info=False)["unnamed_endpoints"]
    photo = client_module.handle_file(str(SCENES[0]))
    facts, labels = client.predict(image=photo, words="sky, grass", method="SCLIP", api_name="/segment")
    assert facts["method"] == "SCLIP" and [entry["name"] for entry in facts["classes"]] == ["sky", "grass"]
    model = ClearCLIP.from_pretrained("miniature", method="SCLIP")
    expected = model.segment(SCENES[0], ["sky", "grass"]).labels
    assert (np.asarray(Image.open(labels)) == expected).all()
    with pytest.raises(client_module.exceptions.AppError, match="no words given"):
        client.predict(image=photo, words=" ", api_name="/segment")

    def curl(*arguments: str) -> str:
        command = ["curl", "--silent", "--show-error", "--fail", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    [path] = json.loads(curl("-F", f"files=@{SCENES[0]}", f"{page}gradio_api/upload"))
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "sky, grass", "SCLIP"]}
    header = ("-H", "Content-Type: application/json")
    call = json.loads(curl("-d", json.dumps(data), *header, f"{page}gradio_api/call/segment"))
    answer = curl("--no-buffer", f"{page}gradio_api/call/segment/{call['event_id']}")
    facts, labels = json.loads(answer.partition("data: ")[2])
    assert facts["method"] == "SCLIP"
    target = tmp_path / "labels.png"
    curl("-o", str(target), f"{page}gradio_api/file={labels['path']}")
    assert (np.asarray(Image.open(target)) == expected).all()
