"""Requests of many threads segmented together, for services: an image tower runs faster on several images at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from clearclip.model import Classes, ClearCLIP
from clearclip.segmentation import Segmentation
from clearclip.utils.image_inputs import ImageFailure

#: How many images are segmented together at most, and how many may wait.
IMAGES_TOGETHER, WAITING_IMAGES = 8, 64


@dataclass
class _Request:
    image: Any
    classes: Classes
    answer: Future[Segmentation] = field(default_factory=Future)


class RequestBatches:
    """A model that segments together what arrives together.

        requests = RequestBatches(ClearCLIP.from_pretrained("ViT-B-16", "openai"))
        requests.segment(image, ["sky", "tree"]).shares  # from any number of threads
        await asyncio.wrap_future(requests.submit(image, ["sky", "tree"]))  # from asyncio

    One thread computes. It begins with the first request, so that a process that was forked before has its own.

    Args:
        model: what segments.
        images_together: at most; requests with the same classes are one batch.
        waiting_images: at most; who comes then waits until there is room.
    """

    def __init__(self, model: ClearCLIP, images_together: int = IMAGES_TOGETHER, waiting_images: int = WAITING_IMAGES):
        self.model = model
        self.images_together = images_together
        self._requests: queue.Queue[_Request] = queue.Queue(waiting_images)
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()

    def segment(self, image: Any, classes: Classes) -> Segmentation:
        """The result of one image; waits for it.

        Args:
            image, classes: as :meth:`ClearCLIP.segment` takes them. An opened file has to stay
                open until the result is there.

        Raises:
            UserError: as :meth:`ClearCLIP.segment` raises it. Other requests do not notice.
        """
        return self.submit(image, classes).result()

    def submit(self, image: Any, classes: Classes) -> Future[Segmentation]:
        """The same without waiting for the result."""
        with self._thread_lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="clearclip-requests", daemon=True)
                self._thread.start()
        request = _Request(image, classes)
        self._requests.put(request)
        return request.answer

    def _work(self) -> None:
        while True:
            requests = [self._requests.get()]
            while len(requests) < self.images_together and not self._requests.empty():
                requests.append(self._requests.get())
            for group in _groups_by_classes(requests):
                self._answer(group)
            # Otherwise the last results stay in memory until somebody asks again.
            del requests, group

    def _answer(self, requests: Sequence[_Request]) -> None:
        """Segment the images of requests that have the same classes."""
        # Those that were cancelled meanwhile are left out.
        requests = [request for request in requests if request.answer.set_running_or_notify_cancel()]
        if not requests:
            return
        images = [request.image for request in requests]
        try:
            results = self.model.segment(images, requests[0].classes, on_error="skip")
        except Exception as error:  # whatever it is, it belongs to these requests, and the thread goes on
            for request in requests:
                request.answer.set_exception(error)
            return
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, ImageFailure):
                request.answer.set_exception(result.error)
            else:
                request.answer.set_result(result)


def _groups_by_classes(requests: Sequence[_Request]) -> list[list[_Request]]:
    """Requests with the same classes together."""
    groups: list[list[_Request]] = []
    for request in requests:
        # Compared and not hashed: classes may be lists.
        for group in groups:
            if group[0].classes == request.classes:
                group.append(request)
                break
        else:
            groups.append([request])
    return groups
