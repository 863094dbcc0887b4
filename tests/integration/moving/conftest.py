"""Tenants on their way between two real servers."""

from tests.support.staged import move, rehearsing, stage
from tests.support.warm_stage import warm_target, warmed

__all__ = ["move", "rehearsing", "stage", "warm_target", "warmed"]
