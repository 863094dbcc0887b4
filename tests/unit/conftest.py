"""Unit tests use no network."""

import socket
from typing import Never

import pytest


class ReachedOutsideError(BaseException):
    """A unit test used the network; not an Exception, so that no retry swallows it."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections and name look-ups: a test that needs them belongs to tests/integration."""

    def refuse(*arguments: object, **_: object) -> Never:
        raise ReachedOutsideError(f"a unit test tried to reach {arguments[-1]!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket.socket, "sendto", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
