"""Tenants on their way between two real servers."""

from tests.support.staged import move, rehearsing, stage

__all__ = ["move", "rehearsing", "stage"]
