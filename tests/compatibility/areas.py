"""The areas: which tests say what about RabbitMQ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Area:
    """Tests that are run and counted together.

    Attributes:
        name: of the row.
        what: what they try, as the page says it.
        paths: files of tests.
        long: whether its tests take minutes each, and have representatives.
    """

    name: str
    what: str
    paths: tuple[str, ...]
    long: bool = False


AREAS: Final = (
    Area(
        "topology",
        "`rehome topology apply` and `check`, by AMQP, `rabbitmqctl` and the management API",
        ("tests/integration/test_topology.py",),
    ),
    Area(
        "users",
        "`rehome topology users`, by `rabbitmqctl`, by the management API, and as a script",
        ("tests/integration/test_broker_users.py",),
    ),
    Area(
        "permissions",
        "what each role may do, and may not; every role at work",
        ("tests/integration/test_permissions.py", "tests/integration/test_roles_at_work.py"),
    ),
    Area(
        "deliveries",
        "the contract of the port: publish, confirm, retry, dead letter, replay; counting queues; malformed messages",
        (
            "tests/contract/test_broker.py",
            "tests/contract/test_queues.py",
            "tests/integration/test_malformed_messages.py",
        ),
    ),
    Area(
        "other teams",
        "publisher and subscriber of rehome-events, and the documents' examples",
        ("tests/integration/events", "tests/integration/test_sandbox_events.py"),
    ),
    Area("TLS", "certificates, expired, foreign and missing", ("tests/integration/test_tls_broker.py",)),
    Area(
        "a node in trouble",
        "frozen, killed, full, out of memory; consumers that it lost",
        ("tests/integration/test_broker_trouble.py", "tests/integration/test_sandbox_broker.py"),
    ),
    Area(
        "moves and a node's faults",
        "it stops, is killed, frozen, refuses or loses a binding in the middle of a move",
        ("tests/chaos/test_broker_faults.py", "tests/chaos/test_topology_faults.py"),
        long=True,
    ),
    Area(
        "moves and a cluster's faults",
        "three nodes lose one, or their majority, in the middle of a move",
        ("tests/chaos/test_cluster_faults.py",),
        long=True,
    ),
)
