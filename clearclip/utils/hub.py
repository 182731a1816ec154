"""Published files: from the cache if they are in it, else downloaded; one clear line where that fails."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from urllib.request import urlopen

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from tqdm import tqdm

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_atomically

#: Seconds to wait for an answer.
TIMEOUT = 5
_cached_only = ContextVar("cached_only", default=False)


@contextmanager
def cached_only() -> Iterator[None]:
    """Nothing is downloaded in this block: what is not on this machine cannot be had."""
    token = _cached_only.set(True)
    try:
        yield
    finally:
        _cached_only.reset(token)


def fetch(repository: str, *names: str, remedy: str) -> Path:
    """The first of these files that a repository on the Hugging Face hub has. A cached file needs no request.

    Raises:
        UserError: none of them can be had; says why, and the ``remedy``.
    """
    for step in (_from_cache, download_from_hub):
        for name in names:
            try:
                if (path := step(repository, name)) is not None:
                    return path
            except Exception as error:  # whatever the network or the hub's client raises
                failure = error
                if not isinstance(error, EntryNotFoundError):
                    break
    files = f"{' or '.join(names)} of {repository}"
    raise UserError(f"{files} cannot be fetched from the Hugging Face hub ({_reason(failure)}); {remedy}") from failure


def _from_cache(repository: str, name: str) -> Path | None:
    cached = try_to_load_from_cache(repository, name)
    return Path(cached) if isinstance(cached, str) else None


def download_from_hub(repository: str, name: str) -> Path:
    """One file of a repository, or an error of the hub's client, soon."""
    if _cached_only.get():
        raise OSError("it is not on this machine")
    for client in ("huggingface_hub", "httpx", "httpx2"):  # what they log, the error says
        logging.getLogger(client).setLevel(logging.ERROR)
    if not constants.HF_HUB_OFFLINE:
        # Asks once. The download would ask for a minute where there is no network.
        get_hf_file_metadata(hf_hub_url(repository, name), timeout=TIMEOUT)
    return Path(hf_hub_download(repository, name))


def fetch_url(url: str, remedy: str) -> Path:
    """A file by its address, kept where PyTorch keeps checkpoints.

    Raises:
        UserError: it cannot be had; says why, and the ``remedy``.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]

    def download(temporary: Path) -> None:
        if _cached_only.get():
            raise OSError("it is not on this machine")
        with urlopen(url, timeout=TIMEOUT) as source, open(temporary, "wb") as file:
            size = int(source.headers["Content-Length"])
            bar = tqdm.wrapattr(file, "write", total=size, desc=path.name, disable=None)
            with bar as target:
                shutil.copyfileobj(source, target, 1 << 20)
        if temporary.stat().st_size != size:
            raise OSError("the connection was cut")

    try:
        return path if path.is_file() else write_atomically(path, download)
    except Exception as error:  # whatever the network raises
        raise UserError(f"{url} cannot be downloaded ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the cache does not have it"
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    if status in (401, 403):
        return f"HTTP {status}: no such repository, or one that needs hf auth login"
    return f"HTTP {status}" if status else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
