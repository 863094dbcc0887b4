"""Certificates for tests: an authority, and certificates that it signs."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
_PEM = serialization.Encoding.PEM


class Certificate(NamedTuple):
    """A certificate and its key, each in a PEM file."""

    cert_file: Path
    key_file: Path


class Authority:
    """Signs certificates; its own is in `ca_file`.

    Args:
        directory: a new one, whose name it bears.
        strict: its certificates have all that RFC 5280 demands and Python checks from 3.13 on; else what was enough
            before.
    """

    def __init__(self, directory: Path, *, strict: bool = True) -> None:
        directory.mkdir(mode=0o755)
        self._directory = directory
        self._name = _name(f"Test authority {directory.name}")
        self._strict = strict
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = directory / "ca.pem"
        now = datetime.now(UTC)
        built = self._builder(self._name, self._key.public_key(), now - _DAY, now + _DAY)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if strict:
            built = built.add_extension(_SIGNS, critical=True)
        self.ca_file.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def issue(self, name: str, *hosts: str, expired: bool = False) -> Certificate:
        """A certificate for hosts (addresses or names; none for a client) called ``name``, valid for a day.

        A second call with the same name replaces the files.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        end = now - timedelta(hours=1) if expired else now + _DAY
        built = self._builder(_name(name), key.public_key(), now - 2 * _DAY, end)
        if hosts:
            built = built.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        made.cert_file.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        made.key_file.touch(mode=0o600)
        made.key_file.write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(begin).not_valid_after(end)
        if not self._strict:
            return builder
        of_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        return builder.add_extension(of_authority, critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
