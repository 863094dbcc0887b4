"""What the steps need of the world: one Protocol per neighbour, and `Ports`, which holds them all.

Every method may be called again after it was cut off anywhere, by another process even, and ends in the
same state. Every wait inside has a limit; its error says what it waited for. Errors are those of
`rehome_consumer.errors`. Each port has a real adapter and a fake; one contract suite holds both to these files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rehome_consumer.ports.steps.facts import Clock, Facts
from rehome_consumer.ports.steps.odoo import Filestore, OdooConf, Runtime
from rehome_consumer.ports.steps.platform import DatabaseService, Platform
from rehome_consumer.ports.steps.postgres import Copier, Databases, Replicator, Verifier

if TYPE_CHECKING:
    from rehome_consumer.model import Policy

__all__ = [
    "Clock",
    "Copier",
    "DatabaseService",
    "Databases",
    "Facts",
    "Filestore",
    "OdooConf",
    "Platform",
    "Ports",
    "Replicator",
    "Runtime",
    "Verifier",
]


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a step may touch."""

    policy: Policy
    clock: Clock
    facts: Facts
    platform: Platform
    database_service: DatabaseService
    databases: Databases
    replicator: Replicator
    copier: Copier
    verifier: Verifier
    odoo_conf: OdooConf
    runtime: Runtime
    filestore: Filestore
