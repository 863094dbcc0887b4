"""TLS: the broker's certificate is checked against the authorities that were chosen."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rehome_events.client import Publisher, plan_upgraded
from rehome_events.errors import EventError, Unreachable
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import pass_on


class Authority(NamedTuple):
    """An authority, and a key and certificate for 127.0.0.1 that it signed."""

    ca_file: Path
    server: Path


def make_authority(directory: Path) -> Authority:
    directory.mkdir()
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)

    def certificate(
        subject: x509.Name, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        return builder.add_extension(extension, critical=True).sign(ca_key, hashes.SHA256())

    ca = certificate(ca_name, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    served = certificate(name, key.public_key(), address)
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    authority = Authority(directory / "ca.pem", directory / "server.pem")
    authority.ca_file.write_bytes(ca.public_bytes(encoding))
    authority.server.write_bytes(secret + served.public_bytes(encoding))
    return authority


@pytest.fixture
async def tls_port(contract_broker: BrokerNode, tmp_path: Path) -> AsyncIterator[int]:
    """A port that speaks TLS, with the broker behind it; its authority is in ``tmp_path / "trusted"``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(make_authority(tmp_path / "trusted").server)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", contract_broker.port)
        await asyncio.gather(pass_on(reader, behind[1]), pass_on(behind[0], writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def url(port: int) -> str:
    return f"amqps://guest:guest@127.0.0.1:{port}/migration"


async def test_an_event_is_published_over_tls(tls_port: int, tmp_path: Path) -> None:
    event = plan_upgraded(
        instance_id=uuid4(),
        customer_id=uuid4(),
        subscription_id=uuid4(),
        from_plan="standard",
        to_plan="premium",
        plan_tier="premium",
    )
    async with Publisher(url(tls_port), ca_file=tmp_path / "trusted" / "ca.pem") as publisher:
        await publisher.publish(event)


async def test_a_certificate_of_another_authority_is_refused(tls_port: int, tmp_path: Path) -> None:
    another = make_authority(tmp_path / "another")
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        async with Publisher(url(tls_port), ca_file=another.ca_file, timeout=5):
            pass


async def test_the_systems_authorities_are_the_default(tls_port: int) -> None:
    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        async with Publisher(url(tls_port), timeout=5):
            pass


def test_a_missing_file_of_certificates_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=r"nothing\.pem"):
        Publisher(url(5671), ca_file=tmp_path / "nothing.pem")
