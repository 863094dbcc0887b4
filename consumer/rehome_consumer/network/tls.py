"""TLS to the broker and to PostgreSQL servers: contexts from files, and errors that say what to do."""

from __future__ import annotations

import ssl
from asyncio import IncompleteReadError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from yarl import URL

from rehome_consumer.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
VERIFYING: Final = ("verify-ca", "verify-full")

# What aiormq would read from the URL, but silently ignores beside a context.
_URL_OPTIONS: Final = ("cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl")

# OpenSSL's verification codes (x509_vfy.h).
_EXPIRED, _HOSTNAME, _ADDRESS = 10, 62, 64
_ALERT_LENGTH: Final = 2
_MALFORMED: Final = range(79, 95)
"""What a strict check finds, as Python makes it from 3.13 on: trusted, but not as RFC 5280 says."""


def broker_context(
    url: str, *, ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext | None:
    """The TLS context for a broker's URL; None for amqp://.

    The broker's certificate and its host name are always checked.

    Args:
        url: amqp:// or amqps://.
        ca_file: the authorities that sign the broker's certificate (PEM); by default the system's.
        cert_file: the client certificate (PEM), where the broker requires one.
        key_file: its key; by default in `cert_file`.

    Raises:
        SettingsError: the URL is not valid, a file cannot be used, or TLS is configured and the URL does not use it.
    """
    address = parsed(url)
    files = {
        "REHOME_AMQP_CA_FILE": ca_file,
        "REHOME_AMQP_CERT_FILE": cert_file,
        "REHOME_AMQP_KEY_FILE": key_file,
    }
    if ignored := [option for option in _URL_OPTIONS if option in address.query]:
        raise SettingsError(
            f"REHOME_AMQP_URL: {', '.join(ignored)} is not read from the URL; set {', '.join(files)}"
        )
    if address.scheme == "amqp":
        if unused := [name for name, file in files.items() if file is not None]:
            raise SettingsError(f"{', '.join(unused)} needs an amqps:// URL in REHOME_AMQP_URL")
        return None
    if key_file is not None and cert_file is None:
        raise SettingsError("REHOME_AMQP_KEY_FILE needs REHOME_AMQP_CERT_FILE")
    context = authorities(ca_file, "REHOME_AMQP_CA_FILE")
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"REHOME_AMQP_CERT_FILE={cert_file} with key {key_file or 'in the same file'}: {_said(error)}"
            ) from error
    return context


def authorities(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    """A context for clients that trusts these authorities; None: the system's.

    Raises:
        SettingsError: the file cannot be used; starts with the setting's name.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{setting}={ca_file}: {_said(error)}") from error


def parsed(url: str) -> URL:
    """A broker's URL, parsed.

    Raises:
        SettingsError: it is not valid; the text does not repeat it, since it may hold a password.
    """
    wanted = "REHOME_AMQP_URL must look like amqp://user:password@host:port/vhost (or amqps://)"
    try:
        address = URL(url)
    except ValueError:
        raise SettingsError(wanted) from None
    if address.scheme not in ("amqp", "amqps") or not address.host:
        raise SettingsError(wanted)
    return address


@dataclass(frozen=True, slots=True)
class PostgresTls:
    """TLS to pool and dedicated servers; `mode` is libpq's sslmode."""

    mode: SslMode = "prefer"
    root_cert: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a combination that would protect less than it seems to.

        Raises:
            SettingsError: mode and file do not go together.
        """
        if self.mode in VERIFYING and self.root_cert is None:
            raise SettingsError(f"REHOME_PG_SSLMODE={self.mode} needs REHOME_PG_SSLROOTCERT")
        if self.mode not in VERIFYING and self.root_cert is not None:
            raise SettingsError(
                f"REHOME_PG_SSLROOTCERT is only used with REHOME_PG_SSLMODE={' or '.join(VERIFYING)}, "
                f"which is {self.mode}"
            )

    def argument(self) -> ssl.SSLContext | SslMode:
        """What asyncpg takes as `ssl`.

        Raises:
            SettingsError: the file cannot be used.
        """
        if self.root_cert is None:
            return self.mode
        context = authorities(self.root_cert, "REHOME_PG_SSLROOTCERT")
        context.check_hostname = self.mode == "verify-full"
        return context

    def environment(self) -> dict[str, str]:
        """What PostgreSQL's client programs read."""
        root = {} if self.root_cert is None else {"PGSSLROOTCERT": str(self.root_cert)}
        return {"PGSSLMODE": self.mode, **root}


def explained(error: BaseException) -> str | None:
    """Why TLS failed, and what to do; None where it was not TLS that failed.

    Args:
        error: as caught, with its causes.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError | IncompleteReadError):
        cause = cause.__cause__
    if cause is None:
        return None
    if isinstance(cause, IncompleteReadError):
        return "it answers in TLS: does it need amqps://?" if _is_alert(cause) else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _distrust(cause.verify_code, cause.verify_message)
    reason: Any = cause.reason
    if reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS on this port"
    if "CERTIFICATE_REQUIRED" in str(reason):
        return "it requires a client certificate"
    if "ALERT" in str(reason) and any(word in str(reason) for word in ("CERTIFICATE", "UNKNOWN_CA")):
        return f"it refused the client certificate ({_said(cause)})"
    return f"TLS failed ({_said(cause)})"


def _is_alert(cut_off: IncompleteReadError) -> bool:
    """Whether a TLS alert (21, version, length 2, level, reason) was read as the header of an AMQP frame.

    The header is type, channel and four bytes of length: of an alert, the last are 0, 2, level and reason.
    """
    return not cut_off.partial and (cut_off.expected or 0) >> 16 == _ALERT_LENGTH


def _distrust(code: int, message: str) -> str:
    if code == _EXPIRED:
        return "its certificate has expired: renew it there"
    if code in (_HOSTNAME, _ADDRESS):
        return f"its certificate is for another host: {message.rstrip('.')}"
    if code in _MALFORMED:
        return f"its certificate or its authority's is not as RFC 5280 demands: {message}; issue it again with that"
    return f"its certificate is not signed by a trusted authority ({message})"


def _said(error: OSError) -> str:
    """The operating system's or OpenSSL's error text, without its source lines."""
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error.args[-1]).replace("_", " ").lower()
    return error.strerror or str(error)
