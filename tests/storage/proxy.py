"""A server between the tests and an S3 server, which can spoil what passes."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.s3 import Server
from tests.storage.loopback import answering


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    """May be changed."""


Answer = tuple[int, bytes] | None
"""Status and body, instead of the server's; None: the server's."""

LOST = (0, b"")
"""The server does what is asked, and the connection breaks before it says so."""

CUT = (0, b"cut")
"""The connection breaks in the middle of what the server answers."""


@contextmanager
def between(server: Server, spoil: Callable[[Request], Answer]) -> Iterator[Server]:
    """Within, the server is reached at another address, and `spoil` sees each request first.

    The server must be one that checks no signature.
    """
    host = urlsplit(server.url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # or clients would wait for leave to send a body

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, self.path, dict(self.headers))
            answer = spoil(request)
            if answer not in (None, LOST, CUT):
                self._answer(answer[0], {"Content-Type": "application/xml"}, answer[1])
                return
            connection = http.client.HTTPConnection(host, timeout=30)
            try:
                connection.request(self.command, self.path, body, request.headers)
                got = connection.getresponse()
                data = got.read()
                if answer in (LOST, CUT):
                    self.close_connection = True
                if answer == CUT:
                    data = data[: len(data) // 2]
                if answer != LOST:
                    self._answer(got.status, dict(got.headers), data)
            finally:
                connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        def _answer(self, status, headers, body):
            self.send_response_only(status)
            # Of a HEAD request the server's own length counts: there is no body to measure.
            length = headers.pop("Content-Length", None)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command != "HEAD":  # a body would be taken for the next answer
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with answering(Handler) as url:
        yield replace(server, url=url)


def error(code: str) -> bytes:
    """What an S3 server says when it refuses."""
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
