"""Who may see and do what: tokens, sessions of browsers, names that a trusted proxy sends.

A browser's session is a cookie that the console signs: it holds who it is and until when, never a token, and no server
keeps it. It ends when the tokens are changed, since they are the key that signs it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from rehome_consumer.errors import SettingsError
from rehome_consumer.network import http_server

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from rehome_consumer.settings import Settings

Role = Literal["read", "operator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

COOKIE: Final = "rehome_console"
LASTS: Final = 12 * 3600
"""Seconds for which a browser stays signed in."""
SHORTEST: Final = 20
"""Characters of a token: nobody guesses one of random ones."""
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_NAME: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")
_TOKEN: Final = re.compile(r"[!-9;-~]+")
_BEARER: Final = re.compile(r"bearer +(?P<token>[!-~]+) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `by` is how that is known; a session and a proxy are a browser's, and can be misused by other sites."""

    name: str
    role: Role
    by: Literal["token", "session", "proxy", "loopback"]

    @property
    def operator(self) -> bool:
        """Whether this person may act."""
        return self.role == "operator"


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the setting; of its text only the digest is kept."""

    name: str
    role: Role
    digest: bytes


class Access:
    """Decides who asks."""

    def __init__(self, settings: Settings) -> None:
        """Read the settings.

        Raises:
            SettingsError: a token is not well formed; or everybody could read, from elsewhere too.
        """
        where, text = settings.tokens()
        self.tokens = read_tokens(where, text)
        self._proxies = settings.console_proxies
        self._header = settings.console_proxy_header
        self._operators = frozenset(settings.console_operators)
        if bool(self._proxies) != bool(self._header):
            raise SettingsError(
                "REHOME_CONSOLE_PROXIES and REHOME_CONSOLE_PROXY_HEADER belong together: set both, or none"
            )
        self.closed = bool(self.tokens or self._proxies)
        if not self.closed and not _LOOPBACK_NAMES.issuperset(http_server.names(settings.console_host)):
            raise SettingsError(
                f"REHOME_CONSOLE_HOST={settings.console_host}: where others can reach it, the console needs "
                "REHOME_CONSOLE_TOKENS_FILE (a line such as operator:anna:TOKEN), or a proxy that signs people in "
                "(REHOME_CONSOLE_PROXIES). Without both it listens on 127.0.0.1 only"
            )
        seed = b"".join(token.digest for token in self.tokens)
        seed += settings.key().encode() if settings.has_key else b""
        self._key = hashlib.sha256(b"rehome console" + (seed or secrets.token_bytes(32))).digest()

    def person(self, connection: HTTPConnection) -> Person | None:
        """Who asks; None: nobody that is known."""
        if found := _BEARER.fullmatch(connection.headers.get("authorization", "")):
            return self.by_token(found["token"])
        if self._header and self.through_proxy(connection) and (name := connection.headers.get(self._header)):
            return Person(name[:64], "operator" if name in self._operators else "read", "proxy")
        if signed := connection.cookies.get(COOKIE):
            return self._by_session(signed)
        return None if self.closed else Person("loopback", "read", "loopback")

    def by_token(self, text: str) -> Person | None:
        """Whose token this is. Takes as long for a wrong one."""
        digest = hashlib.sha256(text.encode()).digest()
        found = [token for token in self.tokens if hmac.compare_digest(token.digest, digest)]
        return Person(found[0].name, found[0].role, "token") if found else None

    def session(self, person: Person) -> str:
        """The cookie of a person who has just signed in."""
        content = f"{person.role}:{int(time.time()) + LASTS}:{secrets.token_hex(8)}:{person.name}"
        return f"{_text(content.encode())}.{self._signature('session', content)}"

    def csrf(self, connection: HTTPConnection, person: Person) -> str:
        """What a form of this person's page carries, which no other site knows."""
        return self._signature("form", f"{person.name} {connection.cookies.get(COOKIE, '')}")

    def may_post(self, connection: HTTPConnection, person: Person, given: str) -> bool:
        """Whether a request that changes something is this person's own wish, and not another site's."""
        if person.by == "token":
            return True  # no browser adds that header by itself
        return same_site(connection) and hmac.compare_digest(
            given.encode(), self.csrf(connection, person).encode()
        )

    def is_host(self, connection: HTTPConnection) -> bool:
        """Whether its Host may be answered: without tokens only loopback's, or pages of other sites could read."""
        return self.closed or urlsplit(f"//{connection.headers.get('host', '')}").hostname in _LOOPBACK_NAMES

    def through_proxy(self, connection: HTTPConnection) -> bool:
        """Whether the connection comes from one of the trusted proxies."""
        try:
            peer: Any = ip_address(connection.client.host if connection.client else "")
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._proxies)

    def is_https(self, connection: HTTPConnection) -> bool:
        """Whether the browser came by https, to us or to a trusted proxy."""
        forwarded = connection.headers.get("x-forwarded-proto") if self.through_proxy(connection) else None
        return (forwarded or connection.url.scheme) in ("https", "wss")

    def _by_session(self, signed: str) -> Person | None:
        encoded, _, signature = signed.partition(".")
        try:
            content = base64.urlsafe_b64decode(encoded.encode()).decode()
        except ValueError:
            return None
        if not hmac.compare_digest(signature.encode(), self._signature("session", content).encode()):
            return None
        role, until, _, name = content.split(":", 3)
        # Of a token that is there: whoever has the only one could compute the key, and write another role.
        token = next((one for one in self.tokens if (one.name, one.role) == (name, role)), None)
        if token is None or int(until) < time.time():
            return None
        return Person(token.name, token.role, "session")

    def _signature(self, purpose: str, content: str) -> str:
        return _text(hmac.digest(self._key, f"{purpose}\n{content}".encode(), "sha256"))


def read_tokens(where: str, text: str) -> tuple[Token, ...]:
    """The tokens of a setting: role:name:token, between them commas or line ends; # begins a comment line.

    Args:
        where: the setting's name, for errors, which never quote a token.
        text: its value.

    Raises:
        SettingsError: one is not well formed, too short, or listed twice.
    """
    found: list[Token] = []
    for number, line in enumerate(re.split(r"[,\n]", text), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        parts = [part.strip() for part in line.split(":")]
        if len(parts) != 3 or parts[0] not in ROLES or not _NAME.fullmatch(parts[1]):  # noqa: PLR2004
            raise SettingsError(
                f"{where}: entry {number}: write role:name:token, the role is one of {', '.join(ROLES)}, "
                "the name of letters, digits and . @ + - _"
            )
        role, name, token = parts
        if len(token) < SHORTEST or not _TOKEN.fullmatch(token):
            raise SettingsError(
                f"{where}: entry {number} (of {name}): a token has {SHORTEST} printable ASCII characters or more, "
                "no comma or colon; such as: openssl rand -hex 20"
            )
        digest = hashlib.sha256(token.encode()).digest()
        if any(one.digest == digest or one.name == name for one in found):
            raise SettingsError(f"{where}: entry {number} (of {name}): that name or token is listed twice")
        found.append(Token(name, "operator" if role == "operator" else "read", digest))
    return tuple(found)


def same_site(connection: HTTPConnection) -> bool:
    """Whether a browser says that the request comes from our own page; programs that say nothing are no browsers."""
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
