"""PARSERS: every parser, its check, and inputs to begin with. One table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz import answers, files, messages
from tests.fuzz.common import Parser

if TYPE_CHECKING:
    from collections.abc import Mapping

CORPUS: Final = Path(__file__).parent / "corpus"
"""One directory per parser: inputs that broke something once, and some that reach deep code."""

PARSERS: Final[Mapping[str, Parser]] = {
    "envelope": Parser(
        messages.envelope, messages.envelope_seeds, (b"specversion", b"ce-data", b"data_base64")
    ),
    "properties": Parser(
        messages.properties, messages.properties_seeds, (b"rehome-tries", b"ce-specversion")
    ),
    "odoo_conf": Parser(
        files.odoo_conf,
        files.odoo_conf_seeds,
        (b"[options]", b"db_password", b"[DEFAULT]", b"[queue_job]", b"jobrunner_db_host"),
    ),
    "manifest": Parser(
        files.manifest, files.manifest_seeds, (b'"files"', b'"../', b'"sha256"', b"dump/toc.dat")
    ),
    "source": Parser(files.source, files.source_seeds, (b'"files"', b'"../', b"dump/toc.dat")),
    "restore_lists": Parser(
        files.restore_lists, files.restore_list_seeds, (b"TABLE DATA ", b"SCHEMA - ", b"DEFAULT ACL ")
    ),
    "ownership_tag": Parser(
        files.ownership_tag, files.ownership_tag_seeds, (b'"rehome"', b"Infinity", b'"verified"')
    ),
    "users": Parser(
        files.users, files.users_seeds, (b"[[user]]", b"password_file", b"subscriber", b"\\u0000")
    ),
    "database_service": Parser(answers.database_service, answers.database_seeds, (b"db_password", b"detail")),
    "supervisor": Parser(answers.supervisor, answers.supervisor_seeds, (b"template_version", b"log_tail")),
    "docker": Parser(
        answers.docker, answers.docker_seeds, (b"ContainerSpec", b"rehome.before-resize", b"null")
    ),
    "docker_nodes": Parser(
        answers.docker_nodes, answers.docker_nodes_seeds, (b"Availability", b"ApiVersion", b"null")
    ),
    "task_log": Parser(answers.task_log, lambda: (b"\x01\0\0\0\0\0\0\x03abc",)),
    "definitions": Parser(answers.definitions, answers.definitions_seeds, (b'"policies"', b'"arguments"')),
    "access": Parser(
        answers.access, answers.access_seeds, (b'"permissions"', b'"topic_permissions"', b'"migration"')
    ),
    "health": Parser(answers.health, answers.health_seeds, (b"200", b"404")),
    "host_map": Parser(answers.host_map, answers.host_map_seeds, (b"=", b":", b"[::1]")),
}
