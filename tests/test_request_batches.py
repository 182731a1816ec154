"""Requests of many threads and of asyncio, segmented together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clearclip import ClearCLIP, UserError
from clearclip.request_batches import RequestBatches

WORDS = (["sky", "tree"], ["boat", "water", "sky"])


class CountingModel:
    """A model whose first call waits until all requests are there, and that notes what it is asked."""

    def __init__(self, model: ClearCLIP):
        self.model = model
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.may_go_on = threading.Event()

    def segment(self, images: list, classes: list[str], on_error: str) -> list:
        assert self.may_go_on.wait(60)
        self.calls.append((len(images), tuple(classes)))
        return self.model.segment(images, classes, on_error=on_error)


@pytest.fixture(scope="module")
def model(quick_name: str) -> ClearCLIP:
    return ClearCLIP.from_pretrained(quick_name, device="cpu", slide_crop=64, slide_stride=64, short_side=64)


@pytest.fixture
def images() -> Iterator[np.ndarray]:
    return iter(np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8))


def test_what_arrives_together_is_one_call(model: ClearCLIP, images: Iterator[np.ndarray]) -> None:
    counting = CountingModel(model)
    requests = RequestBatches(counting, images_together=4)
    first = requests.submit(next(images), WORDS[0])
    asked = [(image, WORDS[number % 2]) for number, image in enumerate(images)][:8]
    answers = [requests.submit(image, list(words)) for image, words in asked]
    counting.may_go_on.set()
    assert first.result().classes == WORDS[0]
    for (image, words), answer in zip(asked, answers, strict=True):
        assert answer.result(60).classes == words
        assert np.array_equal(answer.result().labels, model.segment(image, words).labels)
    # The first alone (or with some of the next ones, if the thread was slow), then never more than four together.
    assert sum(count for count, _ in counting.calls) == 9
    assert max(count for count, _ in counting.calls) > 1
    assert all(count <= 4 for count, _ in counting.calls)


def test_errors_belong_to_their_request(model: ClearCLIP, images: Iterator[np.ndarray], tmp_path: Path) -> None:
    requests = RequestBatches(model)
    with ThreadPoolExecutor(4) as pool:
        bad_image = pool.submit(requests.segment, tmp_path / "missing.png", WORDS[0])
        bad_words = pool.submit(requests.segment, next(images), ["sky, tree"])
        good = pool.submit(requests.segment, next(images), WORDS[0])
        assert good.result().labels.shape == (64, 64)
        with pytest.raises(UserError, match=r"missing\.png"):
            bad_image.result()
        with pytest.raises(UserError, match="has a comma"):
            bad_words.result()
    broken = RequestBatches(None)
    for _ in range(2):  # any other error is the caller's as well, and the thread lives on
        with pytest.raises(AttributeError, match="segment"):
            broken.segment(next(images), WORDS[0])


def test_asyncio_and_cancelled_requests(model: ClearCLIP, images: Iterator[np.ndarray]) -> None:
    async def ask() -> list:
        requests = RequestBatches(model)
        futures = [asyncio.wrap_future(requests.submit(image, WORDS[0])) for image in list(images)[:5]]
        return await asyncio.gather(*futures)

    assert [result.labels.shape for result in asyncio.run(ask())] == [(64, 64)] * 5
    counting = CountingModel(model)
    requests = RequestBatches(counting)
    first = requests.submit(np.zeros((64, 64, 3), np.uint8), WORDS[0])
    cancelled = requests.submit(np.zeros((64, 64, 3), np.uint8), WORDS[1])
    assert cancelled.cancel() or cancelled.running()
    counting.may_go_on.set()
    assert first.result(60).classes == WORDS[0]
    assert requests.segment(np.zeros((64, 64, 3), np.uint8), WORDS[0]).classes == WORDS[0]
