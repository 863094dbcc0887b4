"""The administrator's password is proven by SCRAM-SHA-256, or not at all: with a false server, and real ones."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.common.scram_only import NotScramError, connect
from rehome_consumer.errors import Incompatible
from sandbox.postgres.server import SUPERUSER, Cluster
from sandbox.postgres.tenants import nasty_password
from sandbox.system.accounts import database_account, give
from sandbox.system.net import LOOPBACK, wait_until
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PASSWORD = "correct-horse-battery"
SALT = b"\x01\x02\x03\x04"
SSL_REQUEST, IS_MD5, IS_CLEAR_TEXT = 80877103, 5, 3
HBA = "host all {user} 127.0.0.1/32 {method}\n"


def request(code: int, more: bytes = b"") -> bytes:
    """AuthenticationRequest."""
    return b"R" + struct.pack("!ii", 8 + len(more), code) + more


class FalseServer:
    """Speaks as much of the protocol as it takes to be sent a password, and keeps every byte that it gets."""

    def __init__(self, answer: bytes, *, byte_by_byte: bool = False) -> None:
        self.answer, self.byte_by_byte = answer, byte_by_byte
        self.got = b""
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[FalseServer]:
        server = await asyncio.start_server(self._talk, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                start = await reader.readexactly(8)
                rest = await reader.readexactly(int.from_bytes(start[:4]) - 8)
                self.got += start + rest
                if int.from_bytes(start[4:]) != SSL_REQUEST:
                    break
                writer.write(b"N")  # no TLS here: `prefer` goes on without
            for piece in [bytes([one]) for one in self.answer] if self.byte_by_byte else [self.answer]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while piece := await reader.read(1000):
                self.got += piece
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def arguments(self) -> dict[str, Any]:
        return {"host": LOOPBACK, "port": self.port, "user": "postgres", "password": PASSWORD, "timeout": 10}


def md5_of(password: str, user: str) -> bytes:
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    return hashlib.md5(inner.encode() + SALT, usedforsecurity=False).hexdigest().encode()


@pytest.mark.parametrize("ssl", ["prefer", "disable"])
@pytest.mark.parametrize("byte_by_byte", [False, True])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (request(IS_CLEAR_TEXT), "it asked for the password in clear text; only SCRAM-SHA-256 is answered"),
        (request(IS_MD5, SALT), "it asked for the password as MD5; only SCRAM-SHA-256 is answered"),
        (request(0), "it asked for no password, as anyone who answers there could"),
        (request(7), "it asked for a login of kind 7"),
        (request(12, b"v=abcd"), "out of order"),
        (request(10, b"SCRAM-SHA-256\0\0") + request(0), "it asked for no password"),
        (request(10, b"SCRAM-SHA-256\0\0") + request(IS_CLEAR_TEXT), "in clear text"),
        (request(11, b"r=a,s=QQ==,i=4096"), "out of order"),
        (request(10, b"SCRAM-SHA-256\0\0") * 2, "out of order"),
        (
            request(10, b"SCRAM-SHA-256\0\0") + request(11, b"r=a,s=QQ==,i=4000000000"),
            "more than 1,000,000 rounds of hashing",
        ),
        (b"E" + struct.pack("!i", 100_000_000), "it does not speak PostgreSQL's protocol"),
    ],
)
async def test_a_false_server_learns_nothing_of_the_password(
    answer: bytes,
    message: str,
    byte_by_byte: bool,
    ssl: str,
) -> None:
    async with FalseServer(answer, byte_by_byte=byte_by_byte).listening() as server:
        with pytest.raises(NotScramError) as caught:
            await connect(**server.arguments(), ssl=ssl)
        assert message in str(caught.value)
        assert server.got
        assert PASSWORD.encode() not in server.got
        assert md5_of(PASSWORD, "postgres") not in server.got


async def test_asyncpg_without_this_module_sends_the_password() -> None:
    async with FalseServer(request(IS_CLEAR_TEXT)).listening() as server:
        connecting = asyncio.create_task(asyncpg.connect(**server.arguments()))

        async def received() -> bool:
            return PASSWORD.encode() in server.got

        await wait_until(received, what="the password in clear text", limit=10)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


@pytest.fixture(scope="module")
async def cluster(scratch: Path) -> AsyncIterator[Cluster]:
    """A server with and without TLS, whose roles `clear` and `hashed` are asked in other ways."""
    certificate = Authority(scratch / "scram_authority").issue("postgres", "127.0.0.1")
    give(certificate.key_file, database_account())
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(certificate.cert_file),
        "ssl_key_file": str(certificate.key_file),
    }
    made = await Cluster.create(scratch / "scram_pg", password=nasty_password(), settings=settings)
    methods = {"clear": "password", "hashed": "md5", "open": "trust", SUPERUSER: "scram-sha-256"}
    (made.data / "pg_hba.conf").write_text(
        "".join(HBA.format(user=user, method=method) for user, method in methods.items())
    )
    await made.start()
    async with made.connect() as connection:
        await connection.execute(
            f"SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD '{PASSWORD}'"
        )
        await connection.execute("RESET password_encryption; CREATE ROLE open LOGIN")
        await connection.execute(f"CREATE ROLE clear LOGIN PASSWORD '{PASSWORD}'")
    yield made
    await made.destroy()


@pytest.mark.parametrize(("ssl", "encrypted"), [("disable", False), ("prefer", True), ("require", True)])
async def test_a_real_server_that_asks_for_scram_is_answered(
    cluster: Cluster, ssl: str, encrypted: bool
) -> None:
    connection = await connect(
        host=LOOPBACK,
        port=cluster.port,
        user=SUPERUSER,
        password=cluster.password,
        database="postgres",
        ssl=ssl,
    )
    try:
        assert await connection.fetchval("SELECT repeat('x', 3000000)") == "x" * 3_000_000
        assert (
            await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == encrypted
        )
    finally:
        await connection.close()


@pytest.mark.parametrize("ssl", ["disable", "prefer"])
async def test_a_wrong_password_is_reported_as_by_asyncpg(cluster: Cluster, ssl: str) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(host=LOOPBACK, port=cluster.port, user=SUPERUSER, password="wrong", ssl=ssl)


@pytest.mark.parametrize("ssl", ["disable", "prefer"])
@pytest.mark.parametrize(
    ("user", "message"), [("clear", "in clear text"), ("hashed", "as MD5"), ("open", "asked for no password")]
)
async def test_a_real_server_that_asks_in_another_way_is_refused(
    cluster: Cluster, user: str, message: str, ssl: str
) -> None:
    arguments: dict[str, Any] = {
        "ssl": ssl,
        "host": LOOPBACK,
        "port": cluster.port,
        "user": user,
        "password": PASSWORD,
        "database": "postgres",
    }
    with pytest.raises(NotScramError, match=message):
        await connect(**arguments)
    with pytest.raises(Incompatible, match=f"looking: it.*{message}"), translated("looking"):
        await connect(**arguments)
    others = await asyncpg.connect(**arguments)  # other connections are not changed
    await others.close()
