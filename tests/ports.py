"""Loopback ports for the servers that the tests start."""

import contextlib
import random
import socket

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to connections: one of these could take a server's port before
the server does."""

_dice = random.SystemRandom()  # several processes of tests draw from the same ports


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        port = _dice.choice(_PORTS)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for each in range(port, port + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
