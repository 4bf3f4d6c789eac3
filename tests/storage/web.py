"""A web server of the tests' own, on loopback: it has some files, or answers as it is told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple

from tests.storage.loopback import answering


class Web(NamedTuple):
    url: str
    asked: list[str]
    """Methods and paths of all requests, in order."""


@contextmanager
def web(
    files: dict[str, bytes], spoil: Callable[[list[str]], int | None] = lambda asked: None
) -> Iterator[Web]:
    """Within, a server has the files, by their paths.

    spoil: given the requests so far, the status that the last one gets in place of its file; 0
    breaks the connection.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            asked.append(f"{self.command} {self.path}")
            status = spoil(asked)
            if status == 0:
                self.close_connection = True
                return
            data = files.get(self.path)
            if status is None:
                status = 404 if data is None else 200
            self.send_response(status)
            body = data or b"" if status == 200 else b"no"
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", self.path)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = handle_any  # noqa: N815

        def log_message(self, *_):
            pass

    with answering(Handler) as url:
        yield Web(url, asked)
