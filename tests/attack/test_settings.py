"""What a tenant has set for its database and its role, in our sessions and in its new home."""

import pytest

from tests.attack.attack import COMPLETED, ROLLED_BACK, Attack

SPELT = (
    "statement_timeout = '600s'",
    "lock_timeout = '120000ms'",
    "work_mem = '65536kB'",
    "idle_in_transaction_session_timeout = '60min'",
    "jit = 'off'",
    "enable_seqscan = '1'",
    "random_page_cost = '1.10'",
    "datestyle = 'sql, dmy'",
    'search_path = "$user", public',
)
"""As people spell them; the server keeps the text, and says it otherwise."""

HOSTILE = (
    "role = '{role}'",
    "role = 'none'",
    "search_path = canary, public, pg_catalog",
    "standard_conforming_strings = off",
    "backslash_quote = on",
    "escape_string_warning = off",
    "default_transaction_read_only = on",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "statement_timeout = 1",
    "lock_timeout = 1",
    "idle_session_timeout = 1",
    "idle_in_transaction_session_timeout = 1",
    "client_min_messages = debug5",
    "client_encoding = latin1",
    "datestyle = 'German, DMY'",
    "intervalstyle = sql_standard",
    "timezone = 'Pacific/Chatham'",
    "bytea_output = escape",
    "extra_float_digits = '-15'",
    "quote_all_identifiers = on",
    "row_security = off",
    "check_function_bodies = off",
    "constraint_exclusion = on",
    "xmloption = document",
    "transform_null_equals = on",
    "array_nulls = off",
    "default_toast_compression = lz4",
    "canary.seen = 'x'",
)


@pytest.mark.representative("15-15")
async def test_settings_in_everyday_spellings_do_not_hinder_a_move_and_arrive(attack: Attack) -> None:
    await attack.make()
    for setting in SPELT:
        await attack.as_tenant(f"ALTER DATABASE {attack.tenant.database} SET {setting}")
    await attack.remember()
    await attack.begin()
    assert await attack.ends() == COMPLETED, attack.refusal()
    assert {name: values for name, values in (await shown(attack)).items() if len(values) > 1} == {}
    await attack.holds()


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(one, marks=pytest.mark.representative("15-15"))
        if "role" in one or "_path" in one
        else one
        for one in HOSTILE
    ],
)
async def test_a_hostile_setting_gives_the_tenant_nothing(setting: str, attack: Attack) -> None:
    await attack.make("planner")
    spelt = setting.format(role=attack.tenant.role)
    await attack.as_tenant(
        f"ALTER DATABASE {attack.tenant.database} SET {spelt}",
        f"ALTER ROLE CURRENT_USER IN DATABASE {attack.tenant.database} SET {spelt}",
    )
    await attack.remember()
    await attack.begin()
    assert await attack.ends() in (COMPLETED, ROLLED_BACK)
    await attack.holds()


async def shown(attack: Attack) -> dict[str, set[str]]:
    """Setting -> what a new session shows of it, on the pool and on the dedicated server."""
    dedicated = await attack.dedicated()
    assert dedicated is not None
    found: dict[str, set[str]] = {setting.partition(" = ")[0]: set() for setting in SPELT}
    for cluster in (attack.pool, dedicated):
        async with cluster.connect(attack.tenant.database) as connection:
            rows = await connection.fetch(
                "SELECT name, setting FROM pg_settings WHERE name = ANY($1)", [*found]
            )
            for name, value in rows:
                found[name].add(value)
    return found
