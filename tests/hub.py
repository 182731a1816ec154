"""A web server on the loopback address that answers as the Hugging Face hub does."""

from __future__ import annotations

import hashlib
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves ``/OWNER/NAME/resolve/main/FILE``; a context manager.

    Attributes:
        files: their bytes, by "OWNER/NAME/FILE".
        status: answer everything with this status in place of the files, if not None.
        cuts: cut the connection in the middle of so many of the next downloads.
        requests: method and file of every request so far, and where it begins ("GET OWNER/NAME/FILE from 100").
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.status: int | None = None
        self.cuts = 0
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                hub._answer(self)

            do_GET = do_HEAD  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def downloads(self) -> list[str]:
        """The files that were asked for with GET."""
        return [request.removeprefix("GET ") for request in self.requests if request.startswith("GET ")]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.lstrip("/").replace("/resolve/main/", "/", 1)
        first = int(re.match(r"bytes=(\d+)-|$", request.headers.get("Range", ""))[1] or 0)
        if "/resolve/" in request.path:  # the client asks about itself, too
            self.requests.append(f"{request.command} {name}" + (f" from {first}" if first else ""))
        body = self.files.get(name)
        status = self.status or (404 if body is None else 206 if first else 200)
        request.send_response(status)
        if status == 404:
            known = any(other.startswith(name.rpartition("/")[0] + "/") for other in self.files)
            request.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        if status >= 400:
            body = b""
        else:
            request.send_header("X-Repo-Commit", COMMIT)
            request.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            request.send_header("Accept-Ranges", "bytes")
            if first:
                request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        part = body[first:]
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        if request.command == "GET" and body:
            cut = self.cuts > 0
            self.cuts -= cut
            request.wfile.write(part[: len(part) // 2] if cut else part)
