"""odoo.conf as Odoo itself reads it: `RawConfigParser`, section `[options]`, no interpolation."""

from __future__ import annotations

import configparser
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT_OF_OPTION = {
    "db_host": "ODOO_DATABASE_HOST",
    "db_port": "ODOO_DATABASE_PORT_NUMBER",
    "db_name": "ODOO_DATABASE_NAME",
    "db_user": "ODOO_DATABASE_USER",
    "db_password": "ODOO_DATABASE_PASSWORD",
}


class ConfError(Exception):
    """The configuration is missing or unusable; the instance exits with 255."""


@dataclass(frozen=True)
class DatabaseOptions:
    """The database options of odoo.conf."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)


def read_conf(path: Path) -> DatabaseOptions:
    """Read the database options of `path`.

    Raises:
        ConfError: the file is missing, unreadable, not an ini file, or lacks an option. The text never
            holds a line of the file, since a line may be the password.
    """
    parser = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
        options = parser["options"]
        return DatabaseOptions(
            host=options["db_host"],
            port=int(options["db_port"]),
            name=options["db_name"],
            user=options["db_user"],
            password=options["db_password"],
        )
    except OSError as error:
        raise ConfError(f"cannot read {path}: {error.strerror}; it is the only configuration") from None
    except KeyError as error:
        raise ConfError(f"{path} lacks {error}") from None
    except (configparser.Error, ValueError) as error:
        raise ConfError(f"cannot understand {path}: {type(error).__name__}") from None


def bootstrap_conf(path: Path, environment: Mapping[str, str]) -> None:
    """Write odoo.conf from `ODOO_DATABASE_*`, as the image does on a first boot.

    Raises:
        ConfError: one of the variables is missing.
    """
    missing = [variable for variable in ENVIRONMENT_OF_OPTION.values() if variable not in environment]
    if missing:
        raise ConfError(f"first boot (no ODOO_SKIP_BOOTSTRAP=yes) needs {', '.join(missing)}")
    lines = [f"{option} = {environment[name]}" for option, name in ENVIRONMENT_OF_OPTION.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["[options]", *lines, ""]), encoding="utf-8")
    path.chmod(0o640)
