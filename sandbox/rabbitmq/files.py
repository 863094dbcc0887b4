"""The files and environment that a private RabbitMQ node boots with."""

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.system.net import LOOPBACK

VHOST = "migration"

# Settings of a deployed node that a private one replaces by its own: where it listens, what it loads.
_OWN_SETTINGS = (
    "listeners.",
    "load_definitions",
    "definitions.",
    "management.",
    "prometheus.",
    "log.",
    "cluster_formation.",
)


@dataclass(frozen=True)
class BrokerUser:
    """An AMQP user of a private node, with what it may do in vhost ``migration``.

    Attributes:
        name: login.
        password: its password.
        configure: regular expression of the objects it may declare and delete.
        write: ... publish to.
        read: ... consume from, or bind from.
        topics: exchange -> (write, read), regular expressions of the routing keys it may use there.
    """

    name: str = "guest"
    password: str = field(default="guest", repr=False)
    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"
    topics: Mapping[str, tuple[str, str]] = field(default_factory=dict)


GUEST = BrokerUser()


@dataclass(frozen=True)
class BrokerTls:
    """Certificates of a node that speaks TLS and nothing else (PEM files, read again for each connection).

    Attributes:
        ca_file: authorities that vouch for clients.
        cert_file: the node's own certificate; ``key_file`` its key.
        demand_certificate: whether a client must show a certificate.
    """

    ca_file: Path
    cert_file: Path
    key_file: Path
    demand_certificate: bool = False

    def settings(self, port: int) -> list[str]:
        """Lines for ``rabbitmq.conf``; plain TCP is off."""
        return [
            "listeners.tcp = none",
            f"listeners.ssl.default = {LOOPBACK}:{port}",
            f"ssl_options.cacertfile = {self.ca_file}",
            f"ssl_options.certfile = {self.cert_file}",
            f"ssl_options.keyfile = {self.key_file}",
            "ssl_options.verify = verify_peer",
            f"ssl_options.fail_if_no_peer_cert = {str(self.demand_certificate).lower()}",
        ]


def lay_out(
    directory: Path,
    *,
    definitions: Path | None,
    conf: Path | None,
    users: Sequence[BrokerUser],
    listeners: Sequence[str] = (),
) -> None:
    """Make a node's directory, with its folders, definitions, plug-in list and configuration.

    Args:
        directory: the node's own, made if missing.
        definitions: topology; None is an empty vhost ``migration``.
        conf: a deployed node's configuration; settings of its own addresses and files are left out.
        users: those who may log in.
        listeners: further lines of configuration: the addresses it listens on.
    """
    for folder in ("home", "db", "log"):
        (directory / folder).mkdir(parents=True)
    (directory / "enabled_plugins").write_text("[].\n")
    topology = json.loads(definitions.read_text()) if definitions else {"vhosts": [{"name": VHOST}]}
    loaded = directory / "definitions.json"
    loaded.touch(mode=0o600)
    loaded.write_text(json.dumps({**topology, **_access(users)}))
    deployed = [line for line in conf.read_text().splitlines() if not _is_own(line)] if conf else []
    own = [f"load_definitions = {loaded}", "log.console = true", "log.console.level = info"]
    (directory / "rabbitmq.conf").write_text("\n".join([*deployed, *own, *listeners]) + "\n")


def environment(
    directory: Path, name: str, *, port: int | None, distribution: int, port_mapper: int
) -> dict[str, str]:
    """The complete environment of a node laid out in ``directory``, and of the commands that talk to it.

    ``port`` is None where the configuration alone says where it listens.
    """
    listener = {"RABBITMQ_NODE_IP_ADDRESS": LOOPBACK, "RABBITMQ_NODE_PORT": str(port)} if port else {}
    return {
        **listener,
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory / "home"),
        "LANG": "C.UTF-8",
        # No crash dump: it would hold passwords.
        "ERL_CRASH_DUMP_SECONDS": "0",
        "ERL_EPMD_PORT": str(port_mapper),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_NODENAME": f"{name}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(directory / "db"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_PID_FILE": str(directory / "node.pid"),
        # Makes the start script become the node, so that the pid is the node's.
        "RABBITMQ_ALLOW_INPUT": "1",
        # Quorum queues report their counts twice a second instead of every 5 s: tests read them.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1} -rabbit quorum_tick_interval 500"
        ),
    }


def first_errors(log: str, lines: int = 10) -> str:
    """The first errors of a node's log: a boot that fails logs its cause first, and much after it."""
    errors = [line.partition("[error]")[2] for line in log.splitlines() if "[error]" in line]
    return "\n".join(line.partition(">")[2].strip() for line in errors[:lines])


def _is_own(line: str) -> bool:
    return line.strip().startswith(_OWN_SETTINGS)


def _access(users: Sequence[BrokerUser]) -> dict[str, list[dict[str, Any]]]:
    """The parts of a definitions file that say who may log in and do what."""
    return {
        "users": [
            {
                "name": user.name,
                "password_hash": _password_hash(user.password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
            }
            for user in users
        ],
        "permissions": [
            {
                "user": user.name,
                "vhost": VHOST,
                "configure": user.configure,
                "write": user.write,
                "read": user.read,
            }
            for user in users
        ],
        "topic_permissions": [
            {"user": user.name, "vhost": VHOST, "exchange": exchange, "write": write, "read": read}
            for user in users
            for exchange, (write, read) in user.topics.items()
        ],
    }


def _password_hash(password: str) -> str:
    """Base64 of 4 bytes of salt and the salted SHA-256: RabbitMQ's guide "Credentials and Passwords"."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
