"""The base model of all payloads, and the kinds of text, time and number that they use."""

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

MAX_MESSAGE: Final = 2000
# A password may hold almost anything, so rather too much is masked than too little.
_QUOTED: Final = r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_WORD: Final = re.compile(r"\S+")
# scheme://user: before a password@host, but not host:port/path@2x
_USER: Final = re.compile(r"(?<=://)([^/\s:@]*):(?!\d+/)")
_NAMES: Final = ("password", "passwd", "pwd", "secret", "token", "apikey", "api_key")
_HEADER: Final = "authorization"
_SECRETS: Final = (
    # password=..., "password": "...", PASSWORD '...'
    (
        re.compile(rf"(?i)((?:{'|'.join(_NAMES)})[\"']?(?:\s*[=:]\s*|\s+(?=['\"])))({_QUOTED}|[^\s,;)]+)"),
        r"\1***",
    ),
    (re.compile(rf"(?i)({_HEADER}\s*[=:]\s*).+"), r"\1***"),
)


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it is not within the years 1 to 9999") from None


def _without_credentials(word: re.Match[str]) -> str:
    """`scheme://user:***@host` of a URL: from the first user on, up to the word's last @.

    In one regular expression each user would search for the last @ again.
    """
    text = word[0]
    last = text.rfind("@")
    found = _USER.search(text, 0, last) if last > 0 else None
    return f"{text[: found.end()]}***{text[last:]}" if found else text


def masked(text: str) -> str:
    """The text with everything replaced that looks like a password, a token or a URL's credentials.

    Takes time in proportion to the text's length, whatever its content.
    """
    if "@" in text:
        text = _WORD.sub(_without_credentials, text)
    if text.isascii() and not _names_a_secret(text.lower()):
        return text  # as most are; of letters beyond ASCII `re` alone knows which it takes for others
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _names_a_secret(text: str) -> bool:
    return _HEADER in text or any(name in text for name in _NAMES)


def _presentable(value: object) -> object:
    """Mask secrets, drop NUL and cut: a report of a failure must never fail itself."""
    if not isinstance(value, str):
        return value
    text = masked(value[: 4 * MAX_MESSAGE].replace("\x00", ""))
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


Utc = Annotated[AwareDatetime, AfterValidator(_utc)]
"""An instant with a time zone, stored and written in UTC (RFC 3339)."""

Word = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
"""A name or a path: 1 to 255 characters, no NUL."""

Path = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
"""A path on the shared storage: 1 to 4096 characters, no NUL."""

Code = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
"""A short identifier that programs compare: a step, an error class, a reason."""

Message = Annotated[str, BeforeValidator(_presentable), Field(max_length=MAX_MESSAGE)]
"""Prose for people: at most 2000 characters; secrets in it are masked, longer text is cut."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lower-case hexadecimal digits."""

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""How many, or how many bytes: 0 or more, fits 64 bits."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A duration in seconds."""

CustomerId = Annotated[
    UUID,
    Field(
        description="The customer who owns the instance.", examples=["c1a5e0de-2b3c-4d5e-8f60-718293a4b5c6"]
    ),
]


class EventData(BaseModel):
    """Payload of one event type; frozen. Reading ignores fields that this release does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=False)

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1

    instance_id: UUID = Field(
        description="The hosted Odoo instance that the event is about.",
        examples=["7d9f2a54-3c1b-4e8a-9a70-5b1d2c3e4f60"],
    )
