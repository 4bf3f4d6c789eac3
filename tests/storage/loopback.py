"""Servers of the tests' own on loopback: what differs is how they answer."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def answering(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Within, a server answers as a handler says; yields its address."""
    made: Any = handler
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    server.daemon_threads = True  # clients keep their connections, and nobody waits for that
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
