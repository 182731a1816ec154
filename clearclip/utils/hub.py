"""Published files: from the cache if they are in it, else downloaded; one clear line where that fails."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from tqdm import tqdm

from clearclip.utils.errors import UserError
from clearclip.utils.files import write_atomically

#: Seconds to wait for an answer.
_ANSWER_TIMEOUT = 5
#: A variable of the context and no global: another thread may want to download meanwhile.
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
    for name in names:
        cached = _cached_file(repository, name)
        if cached is not None:
            return cached
    try:
        return _download_first(repository, names)
    except Exception as error:  # whatever the network or the hub's client raises
        files = f"{' or '.join(names)} of {repository}"
        raise UserError(
            f"{files} cannot be fetched from the Hugging Face hub ({_failure_reason(error)}); {remedy}"
        ) from error


def _cached_file(repository: str, name: str) -> Path | None:
    try:
        cached = try_to_load_from_cache(repository, name)
    except Exception:  # a name that is none: the download says what is wrong with it
        return None
    # A cache may also remember that there is no such file, by an object of its own.
    if not isinstance(cached, str):
        return None
    return Path(cached)


def _download_first(repository: str, names: Sequence[str]) -> Path:
    """The first of these files that the repository has, or the error for the last of them."""
    for name in names[:-1]:
        # Only where the repository lacks the file, another one may be there.
        with suppress(EntryNotFoundError):
            return download_from_hub(repository, name)
    return download_from_hub(repository, names[-1])


def download_from_hub(repository: str, name: str) -> Path:
    """One file of a repository, or an error of the hub's client, soon."""
    if _cached_only.get():
        raise OSError("it is not on this machine")
    for client in ("huggingface_hub", "httpx", "httpx2"):  # what they log, the error says
        logging.getLogger(client).setLevel(logging.ERROR)
    if not constants.HF_HUB_OFFLINE:
        # Asks once. The download would ask for a minute where there is no network.
        get_hf_file_metadata(hf_hub_url(repository, name), timeout=_ANSWER_TIMEOUT)
    return Path(hf_hub_download(repository, name))


def fetch_url(url: str, remedy: str) -> Path:
    """A file by its address, kept where PyTorch keeps checkpoints.

    Raises:
        UserError: it cannot be had; says why, and the ``remedy``.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        return write_atomically(path, partial(_download_address, url))
    except Exception as error:  # whatever the network raises
        raise UserError(f"{url} cannot be downloaded ({_failure_reason(error)}); {remedy}") from error


def _download_address(url: str, path: Path) -> None:
    """Download an address to a file, with a progress bar on a terminal."""
    if _cached_only.get():
        raise OSError("it is not on this machine")
    with urlopen(url, timeout=_ANSWER_TIMEOUT) as source, open(path, "wb") as file:
        size = int(source.headers["Content-Length"])
        bar = tqdm.wrapattr(file, "write", total=size, desc=url.rpartition("/")[2], disable=None)
        with bar as target:
            shutil.copyfileobj(source, target, 1 << 20)
    # A connection that ends too soon is no error for urlopen.
    if path.stat().st_size != size:
        raise OSError("the connection was cut")


def _failure_reason(error: Exception) -> str:
    """Why a file cannot be had, in a few words."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the cache does not have it"
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    if status in (401, 403):
        return f"HTTP {status}: no such repository, or one that needs hf auth login"
    if status:
        return f"HTTP {status}"
    message = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {message}"
