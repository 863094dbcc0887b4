"""Settings from the environment, and the errors about wrong ones."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

import pytest

from rehome_consumer import bootstrap
from rehome_consumer.errors import SettingsError
from rehome_consumer.settings import IN_FILES, Settings, read_settings

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = {
    "REHOME_AMQP_URL": "amqp://u:p@broker/migration",
    "REHOME_PLATFORM_DSN": "postgresql://u:s3cret@platform/instance",
    "REHOME_DATABASE_SERVICE_URL": "http://database-service",
    "REHOME_DATA_ROOT": "/mnt/cephfs/odoo_instances",
    "REHOME_BACKUP_ROOT": "/mnt/cephfs/backups",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Only the required settings, and no `.env`."""
    import os  # noqa: PLC0415 - one use

    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("REHOME_") or name == "DOCKER_HOST"]:
        monkeypatch.delenv(name)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_required_settings_are_enough() -> None:
    settings = read_settings()
    assert (settings.http_port, settings.http_host) == (None, "127.0.0.1")
    assert settings.state == NEEDED["REHOME_PLATFORM_DSN"]
    assert settings.runtime == "swarm"


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_setting_is_named_in_one_line_with_its_description(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.delenv(name)
    with pytest.raises(SettingsError, match=rf"^{name} is missing: \w") as error:
        read_settings()
    assert "\n" not in str(error.value)


def test_a_command_requires_only_the_settings_that_it_needs(environment: pytest.MonkeyPatch) -> None:
    for name in set(NEEDED) - {"REHOME_AMQP_URL"}:
        environment.delenv(name)
    assert read_settings(needed={"amqp_url"}).amqp_url.get_secret_value() == NEEDED["REHOME_AMQP_URL"]
    environment.delenv("REHOME_AMQP_URL")
    with pytest.raises(SettingsError, match=r"^REHOME_AMQP_URL is missing"):
        read_settings(needed={"amqp_url"})


def test_a_command_that_reads_only_the_journal_needs_one_of_two_settings(
    environment: pytest.MonkeyPatch,
) -> None:
    dsn = "postgresql://rehome@127.0.0.1/journal"
    for name in NEEDED:
        environment.delenv(name)
    with pytest.raises(SettingsError, match=r"^REHOME_PLATFORM_DSN is missing: .* Or set REHOME_STATE_DSN"):
        read_settings(needed={"state"})
    environment.setenv("REHOME_STATE_DSN", dsn)
    assert read_settings(needed={"state"}).state == dsn
    with pytest.raises(SettingsError, match=r"^REHOME_PLATFORM_DSN is missing"):
        read_settings(needed={"platform_dsn"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REHOME_RUNTIME", "kubernetes"),
        ("REHOME_RUNTIME", "my runtime:connected"),
        ("REHOME_JOBS", "0"),
        ("REHOME_JOBS", "many"),
        ("REHOME_WORKERS", "33"),
        ("REHOME_PROVISION_TIMEOUT", "-1"),
        ("REHOME_RETENTION_DAYS", "0"),
        ("REHOME_LONGEST_RETRY", "2h"),
        ("REHOME_LOG_LEVEL", "loud"),
        ("REHOME_HTTP_PORT", "70000"),
    ],
)
def test_a_wrong_setting_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        read_settings()


def test_a_wrong_setting_is_named_even_if_the_command_does_not_need_it(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("REHOME_JOBS", "many")
    with pytest.raises(SettingsError, match=r"^REHOME_JOBS: "):
        read_settings(needed={"amqp_url"})


def test_a_secret_is_in_no_error_and_no_repr(environment: pytest.MonkeyPatch) -> None:
    assert "s3cret" not in repr(read_settings())
    environment.setenv("REHOME_JOBS", "many")
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert "s3cret" not in str(error.value)


async def test_a_custom_runtime_is_plugged_in_by_its_name(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_runtime.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def connected(settings, clock):\n"
        "    yield (settings.start_timeout, clock.now().tzinfo)\n"
    )
    environment.syspath_prepend(tmp_path)
    environment.setenv("REHOME_RUNTIME", "my_runtime:connected")
    async with bootstrap.runtime(read_settings(), bootstrap.SystemClock()) as found:
        assert found == (300.0, UTC)  # type: ignore[comparison-overlap] # no runtime, but what it was given


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:connected", "No module named 'no_such_module'"),
        ("json:nothing", "has no attribute 'nothing'"),
    ],
)
async def test_a_runtime_that_does_not_exist_is_reported_with_its_setting(
    environment: pytest.MonkeyPatch, name: str, message: str
) -> None:
    environment.setenv("REHOME_RUNTIME", name)
    with pytest.raises(SettingsError, match=f"^REHOME_RUNTIME: {name} cannot be imported: .*{message}"):
        async with bootstrap.runtime(read_settings(), bootstrap.SystemClock()):
            pass


def test_docker_s_own_variable_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    assert read_settings().docker_host == "unix:///run/docker.sock"


def test_the_state_may_be_in_a_database_of_its_own(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REHOME_STATE_DSN", "postgresql://u:p@state/rehome")
    assert read_settings().state == "postgresql://u:p@state/rehome"


def test_the_key_comes_from_a_variable_or_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not read_settings().has_key
    with pytest.raises(SettingsError, match="REHOME_SECRET_KEY is missing"):
        read_settings().key()
    file = tmp_path / "key"
    environment.setenv("REHOME_SECRET_KEY_FILE", str(file))
    with pytest.raises(SettingsError, match="REHOME_SECRET_KEY_FILE"):
        read_settings().key()
    file.write_text("sixteen characters and more\n")
    assert read_settings().key() == "sixteen characters and more"
    environment.setenv("REHOME_SECRET_KEY", "another key of sixteen")
    assert read_settings().key() == "another key of sixteen"


@pytest.mark.parametrize("name", IN_FILES)
def test_what_holds_a_password_may_stand_in_a_file(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    variable, secret = f"REHOME_{name.upper()}", tmp_path / "secret"
    text = NEEDED.get(variable, "postgresql://u:fr0mfile@elsewhere/db")
    environment.delenv(variable, raising=False)
    environment.setenv(f"{variable}_FILE", str(secret))
    # A file that gives nothing is named
    with pytest.raises(SettingsError, match=rf"^{variable}_FILE: .*No such file"):
        read_settings()
    secret.write_text("\n")
    with pytest.raises(SettingsError, match=f"^{variable}_FILE: {secret} is empty$"):
        read_settings()
    # What it holds counts, without the end of the line
    secret.write_text(f"{text}\n")
    assert getattr(read_settings(), name).get_secret_value() == text
    # Of two that may differ none is taken
    environment.setenv(variable, text)
    with pytest.raises(SettingsError, match=f"^{variable} and {variable}_FILE: set one of them$"):
        read_settings()


def test_a_dsn_in_a_file_is_looked_at_as_one_in_the_environment(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s3cret")
    environment.setenv("REHOME_STATE_DSN_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError, match=r"^REHOME_STATE_DSN: it must look like postgresql://") as error:
        read_settings()
    assert "s3cret" not in str(error.value)


def test_names_that_do_not_resolve_are_mapped(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REHOME_HOST_MAP", "pool-1=127.0.0.1:5433, pool-2=10.0.0.2 ,")
    assert read_settings().host_map == {"pool-1": "127.0.0.1:5433", "pool-2": "10.0.0.2"}
    environment.setenv("REHOME_HOST_MAP", "pool-1")
    with pytest.raises(SettingsError, match=r"^REHOME_HOST_MAP: write it as name=address"):
        read_settings()


def test_a_developer_s_env_file_is_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REHOME_JOBS=7\nUNRELATED=x\n")
    assert read_settings().jobs == 7
    environment.setenv("REHOME_JOBS", "3")
    assert read_settings().jobs == 3


def test_the_policy_of_steps_comes_from_settings(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REHOME_FENCE_TIMEOUT", "5")
    environment.setenv("REHOME_RETENTION_DAYS", "1.5")
    environment.setenv("REHOME_ROOM_FACTOR", "2")
    policy = read_settings().policy()
    assert policy.fence_limit == timedelta(seconds=5)
    assert policy.retention == timedelta(hours=36)
    assert policy.room_factor == 2


def test_how_a_rehearsal_is_paced_comes_from_settings(environment: pytest.MonkeyPatch) -> None:
    paced = {"JOBS": "3", "RESTORE_JOBS": "5", "NICE": "19", "HOURS": "22:00-05:00"}
    for name, value in paced.items():
        environment.setenv(f"REHOME_REHEARSAL_{name}", value)
    environment.setenv("REHOME_REHEARSALS_PER_SERVER", "4")
    policy = read_settings().policy()
    assert policy.rehearsal_restore_jobs == 5
    assert (policy.rehearsal_jobs, policy.rehearsal_nice, policy.rehearsals_per_server) == (3, 19, 4)
    assert str(policy.rehearsal_hours) == "22:00-05:00 UTC"
    environment.setenv("REHOME_REHEARSAL_NICE", "-5")  # only a privileged process may, and why should it
    with pytest.raises(SettingsError, match=r"^REHOME_REHEARSAL_NICE: .*greater than or equal to 0"):
        read_settings()


def test_windows_come_from_settings_and_a_wrong_one_is_named(environment: pytest.MonkeyPatch) -> None:
    assert read_settings().policy().windows == ()
    environment.setenv("REHOME_WINDOW", "22:00-05:00 Europe/Berlin, 12:00-13:00")
    assert [*map(str, read_settings().policy().windows)] == ["22:00-05:00 Europe/Berlin", "12:00-13:00 UTC"]
    for wrong in ("22:00-05:00 Berlin", "22:00-05:00 Europe/Berlin;12:00-13:00", "nights"):
        environment.setenv("REHOME_WINDOW", wrong)
        with pytest.raises(SettingsError, match=r"^REHOME_WINDOW: .*Europe/Berlin"):
            read_settings()


def test_how_many_may_be_down_comes_from_settings(environment: pytest.MonkeyPatch) -> None:
    assert read_settings().policy().down_at_once is None
    environment.setenv("REHOME_DOWN_AT_ONCE", "3")
    assert read_settings().policy().down_at_once == 3
    environment.setenv("REHOME_DOWN_AT_ONCE", "0")  # that would be a pause without a name
    with pytest.raises(SettingsError, match=r"^REHOME_DOWN_AT_ONCE: .*greater than or equal to 1"):
        read_settings()


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
