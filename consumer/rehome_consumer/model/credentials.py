"""Passwords, and who logs in with them."""

from __future__ import annotations

from dataclasses import dataclass


class Secret:
    """A password. Shows itself only when asked with `reveal()`; its repr and str are stars."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The password itself, for the one place that sends it to a server or writes it into odoo.conf."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A PostgreSQL role's name and password."""

    user: str
    password: Secret
