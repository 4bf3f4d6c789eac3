"""A web server on loopback, which gives a folder's files as servers in use do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import NamedTuple

from tests.storage.loopback import answering


class Site(NamedTuple):
    """A server and what it was asked for."""

    url: str
    asked: list[tuple[str, str, int]]
    """Method, path with query, and how many bytes were sent of the body."""


@contextmanager
def serving(
    folder: Path, parts: bool = True, query: str | None = None, status: int = 0
) -> Iterator[Site]:
    """Within, a folder's files are served.

    parts: whether ranges are.  query: the only one that is allowed.  status: of all answers.
    """
    asked: list[tuple[str, str, int]] = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self._answer()

        def do_GET(self):
            self._answer()

        def _answer(self):
            path, _, found = self.path.partition("?")
            file = Path(self.translate_path(path))
            refused = status or (403 if query not in (None, found) else 0)
            if refused or not file.is_file():
                asked.append((self.command, self.path, 0))
                if not refused and file.is_dir():
                    getattr(super(), f"do_{self.command}")()
                    return
                self.send_response(refused or 404)
                if refused == 302:
                    self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = whole = file.read_bytes()
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if parts and span:
                data = whole[int(span[1]) : int(span[2]) + 1]
            asked.append((self.command, self.path, len(data)))
            self.send_response(206 if data is not whole else 200)
            if data is not whole:
                self.send_header("Content-Range", f"bytes {span[1]}-{span[2]}/{len(whole)}")
            self.send_header("Last-Modified", self.date_time_string(file.stat().st_mtime))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                try:
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True  # who asked has seen enough

    with answering(partial(Handler, directory=str(folder))) as url:
        yield Site(url, asked)
