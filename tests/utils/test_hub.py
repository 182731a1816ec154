"""Real weights over the network: against a server on the loopback address that answers as the hub does."""

from __future__ import annotations

import copy
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import open_clip
import pytest
import torch
from conftest import QUICK
from hub import Hub
from open_clip.transformer import QuickGELU
from safetensors.torch import save

from clearclip import ClearCLIP, UserError
from clearclip.commands.command_line import run_command
from clearclip.commands.demo import demo_command
from clearclip.miniature import BENCHMARK
from clearclip.utils.hub import fetch, fetch_url

ROOT = Path(__file__).resolve().parents[2]
SCENE = BENCHMARK / "images" / "val" / "0001.png"
# Where OpenCLIP keeps the weights of three tags of ViT-B-16, and whether they were trained with QuickGELU.
TAGS = {
    "openai": ("timm/vit_base_patch16_clip_224.openai", True),
    "laion2b_s34b_b88k": ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", False),
    "metaclip_fullcc": ("timm/vit_base_patch16_clip_224.metaclip_2pt5b", True),
}
FILE = "open_clip_model.safetensors"
OPENAI = f"{TAGS['openai'][0]}/{FILE}"


@pytest.fixture(scope="module")
def weights(quick_name) -> bytes:
    """A small model's, in OpenCLIP's layout."""
    folder = Path(quick_name.removeprefix("local-dir:"))
    return save(torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True))


@pytest.fixture
def hub(weights, quick_name, tmp_path, monkeypatch):
    """The hub, with an empty cache before it; OpenCLIP's ViT-B-16 is as small as the weights."""
    config = Path(quick_name.removeprefix("local-dir:"), "open_clip_config.json").read_bytes()
    small = {**copy.deepcopy(QUICK), "quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-16", small)
    with Hub() as server:
        server.files = {f"{repository}/{FILE}": weights for repository, _ in TAGS.values()}
        server.files |= {f"some/one/{FILE}": weights, "some/one/open_clip_config.json": config}
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
            "DOWNLOAD_CHUNK_SIZE": 1 << 16,
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
        yield server


def features(model: ClearCLIP) -> torch.Tensor:
    """Of an image of noise."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.image_encoder(image, [model.method])[0]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_from_the_hub(tag, hub, quick_name, caplog, recwarn):
    """Fetched once, loaded, with its activation, and not called random; then from the cache, also offline."""
    repository, quick_gelu = TAGS[tag]
    model = ClearCLIP.from_pretrained("ViT-B-16", tag, device="cpu")
    assert hub.downloads == [f"{repository}/{FILE}"]
    own = ClearCLIP.from_pretrained(quick_name, device="cpu", quick_gelu=quick_gelu)
    torch.testing.assert_close(features(model), features(own))
    activations = {type(block.mlp.gelu) for block in model.image_encoder.blocks}
    assert activations == {QuickGELU if quick_gelu else torch.nn.GELU}
    hub.requests.clear()
    ClearCLIP.from_pretrained("ViT-B-16", tag, device="cpu")
    assert hub.requests == []
    assert not caplog.records and not recwarn.list


def test_offline_with_a_warm_cache(hub, monkeypatch):
    ClearCLIP.from_pretrained("ViT-B-16", "openai", device="cpu")
    ClearCLIP.from_pretrained("hf-hub:some/one", device="cpu")
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ClearCLIP.from_pretrained("ViT-B-16", "openai", device="cpu")
    ClearCLIP.from_pretrained("hf-hub:some/one", device="cpu")
    assert hub.requests == []
    with pytest.raises(UserError, match=r"\(HF_HUB_OFFLINE is set, and the cache does not have it\)"):
        ClearCLIP.from_pretrained("ViT-B-16", "metaclip_fullcc", device="cpu")


def test_a_model_with_its_own_config(hub, quick_name, caplog):
    model = ClearCLIP.from_pretrained("hf-hub:some/one", device="cpu")
    torch.testing.assert_close(features(model), features(ClearCLIP.from_pretrained(quick_name, device="cpu")))
    assert not caplog.records


def test_random_weights_are_said_to_be_random(hub, caplog):
    ClearCLIP.from_pretrained("ViT-B-16", "random", device="cpu")
    assert "Model initialized randomly" in caplog.text
    assert hub.requests == []


def test_a_download_that_is_cut_goes_on(hub, weights):
    hub.cuts = 1
    path = fetch(TAGS["openai"][0], FILE, remedy="")
    assert path.read_bytes() == weights
    first, second = hub.downloads
    assert first == OPENAI
    assert second.startswith(f"{OPENAI} from ")


def test_a_download_that_is_cut_for_good_leaves_nothing(hub, weights, tmp_path, monkeypatch):
    """The next start begins again."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cuts = 1000
    with pytest.raises(UserError, match=f"{FILE} .* cannot be fetched .*; get it"):
        fetch(TAGS["openai"][0], FILE, remedy="get it")
    hub.cuts = 0
    assert fetch(TAGS["openai"][0], FILE, remedy="").read_bytes() == weights


@pytest.mark.parametrize(
    ("status", "words"), [(401, "HTTP 401: .* hf auth login"), (404, "HTTP 404"), (500, "HTTP 500")]
)
def test_what_the_hub_refuses(status, words, hub):
    """One line, at once, with the file to get."""
    hub.status = status
    repository, quick = TAGS["openai"][0], f"QuickGELU: --model ViT-B-16 --pretrained {FILE} --quick-gelu"
    told = rf"{FILE} .*{repository} cannot be fetched .*\({words}.*{repository}/resolve/main/{FILE} .*{quick}"
    with pytest.raises(UserError, match=told):
        ClearCLIP.from_pretrained("ViT-B-16", "openai", device="cpu")
    with pytest.raises(UserError, match=rf"some/one cannot be fetched .*\({words}.*local-dir:one"):
        ClearCLIP.from_pretrained("hf-hub:some/one", device="cpu")
    assert len(hub.requests) <= 4


@pytest.mark.parametrize("name", ["ViT-B-16.pt", "mine/laion.safetensors"])
def test_a_file_that_is_not_there_is_said_first(name, hub, recwarn):
    """Before anything is fetched, or said of its activation."""
    with pytest.raises(UserError, match=f"^{name}: there is no such file"):
        ClearCLIP.from_pretrained("ViT-B-16", name, device="cpu")
    assert hub.requests == [] and not recwarn.list


def test_a_repository_with_the_older_file(hub):
    hub.files[OPENAI.replace(FILE, "open_clip_pytorch_model.bin")] = hub.files.pop(OPENAI)
    path = fetch(TAGS["openai"][0], FILE, "open_clip_pytorch_model.bin", remedy="")
    assert path.name == "open_clip_pytorch_model.bin"


def test_no_network(hub, capsys, monkeypatch):
    """Nothing answers: one line, without waiting to ask again."""
    hub.__exit__()
    waits = []
    sleep, thread = time.sleep, threading.current_thread()

    def note(seconds):
        # A server of another test may still sleep in a thread of its own.
        if threading.current_thread() is not thread:
            sleep(seconds)
            return
        waits.append(seconds)

    monkeypatch.setattr("time.sleep", note)
    assert run_command(lambda: ClearCLIP.from_pretrained("ViT-B-16", "openai", device="cpu")) == 2
    assert sum(waits) < 5
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_file_by_its_address(hub, tmp_path):
    hub.files["models/model_base_14M.pth"] = bytes(100_000)
    url, kept = f"{hub.url}/models/model_base_14M.pth", tmp_path / "torch" / "checkpoints"
    hub.cuts = 1
    with pytest.raises(UserError, match=r"the connection was cut\); get it"):
        fetch_url(url, "get it")
    assert list(kept.iterdir()) == []
    assert fetch_url(url, "").stat().st_size == 100_000
    hub.requests.clear()
    assert fetch_url(url, "") == kept / "model_base_14M.pth"
    assert hub.requests == []
    with pytest.raises(UserError, match="HTTP 404"):
        fetch_url(url + "x", "")


@pytest.mark.parametrize("option", [[], ["--quick-gelu"], ["--no-quick-gelu"]])
def test_a_file_of_which_nothing_is_said(option, hub, weights, tmp_path, recwarn):
    """It may be anyone's: its activation is not silently OpenAI's."""
    (tmp_path / "laion.safetensors").write_bytes(weights)
    command = [str(SCENE), "--classes", "sky, tree", "--pretrained", str(tmp_path / "laion.safetensors")]
    assert demo_command([*command, "--device", "cpu", "--out", str(tmp_path / "out"), *option]) == 0
    said = [str(warning.message) for warning in recwarn if "--quick-gelu" in str(warning.message)]
    assert len(said) == (not option)


def test_the_demo_on_a_terminal(hub, tmp_path):
    """A fresh process that knows the hub by its environment alone; a progress bar where someone sees it."""
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "TERM": "xterm"}
    command = [sys.executable, str(ROOT / "demo.py"), str(SCENE), "--model", "hf-hub:some/one", "--device", "cpu"]
    command += ["--classes", "sky, tree", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=other)
    os.close(other)
    shown = b""
    while part := _read(terminal):
        shown += part
    assert done.returncode == 0, shown
    assert f"some/one/{FILE}" in hub.downloads
    assert FILE.encode() in shown and b"100%" in shown
    assert b"warning" not in shown.lower()
    assert (tmp_path / "out" / "0001_labels.png").is_file()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its end, on Linux
        return b""
