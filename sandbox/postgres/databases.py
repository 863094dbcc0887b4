"""Roles and databases on a running server, with any names and passwords."""

from pathlib import Path

from sandbox.postgres.server import Cluster

_SCRIPTS = Path(__file__).parents[1] / "sql"


def script(name: str) -> str:
    """The text of a file in ``sandbox/sql``."""
    return (_SCRIPTS / name).read_text()


def quoted(name: str) -> str:
    """An SQL identifier, for any name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string, for any text: for statements that take no parameters."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


async def major_version(cluster: Cluster) -> str:
    """The server's major version, such as ``15``."""
    async with cluster.connect() as connection:
        return str(connection.get_server_version().major)


async def create_role(cluster: Cluster, name: str, password: str) -> None:
    """Make an ordinary role that may log in; one that exists gets the password."""
    async with cluster.connect() as connection:
        exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name)
        verb = "ALTER" if exists else "CREATE"
        await connection.execute(f"{verb} ROLE {quoted(name)} LOGIN PASSWORD{literal(password)}")


async def create_database(
    cluster: Cluster, name: str, *, owner: str = "postgres", template: str = "template0", options: str = ""
) -> None:
    """Make a database.

    Args:
        cluster: a running server.
        name: of the new database.
        owner: an existing role.
        template: the database to copy; it must have no connections.
        options: further clauses, such as ``LC_COLLATE 'C'``.
    """
    async with cluster.connect() as connection:
        await connection.execute(
            f"CREATE DATABASE {quoted(name)} OWNER {quoted(owner)} TEMPLATE {quoted(template)} {options}"
        )


async def drop_database(cluster: Cluster, name: str) -> None:
    """Drop a database and end the connections to it; a missing one is no error."""
    async with cluster.connect() as connection:
        await connection.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")
