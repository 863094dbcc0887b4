"""Settings of a tenant's database and role, in rehome's sessions and on the tenant's new server."""

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
"""As people spell them; the server stores the text, and shows another one."""

HOSTILE = {
    "another role": ("role = '{role}'",),
    "no role": ("role = 'none'",),
    "a search path": ("search_path = canary, public, pg_catalog",),
    "how values are written": (
        "datestyle = 'German, DMY'",
        "intervalstyle = sql_standard",
        "timezone = 'Pacific/Chatham'",
        "bytea_output = escape",
        "extra_float_digits = '-15'",
        "client_encoding = latin1",
        "xmloption = document",
    ),
    "how SQL is read": (
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "escape_string_warning = off",
        "array_nulls = off",
        "quote_all_identifiers = on",
        "transform_null_equals = on",
        "client_min_messages = debug5",
    ),
    "transactions": (
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "default_transaction_deferrable = on",
    ),
    "limits": (
        "statement_timeout = '200ms'",
        "lock_timeout = 1",
        "idle_in_transaction_session_timeout = 1",
        "idle_session_timeout = '5s'",
    ),
    "the planner": (
        "constraint_exclusion = on",
        "row_security = off",
        "check_function_bodies = off",
        "default_toast_compression = pglz",
        "plan_cache_mode = force_generic_plan",
    ),
}


@pytest.mark.representative("15-15")
async def test_settings_in_usual_spellings_do_not_prevent_a_move_and_arrive(attack: Attack) -> None:
    await attack.make()
    for setting in SPELT:
        await attack.as_tenant(f"ALTER DATABASE {attack.tenant.database} SET {setting}")
    await attack.remember()
    await attack.begin()
    assert await attack.ends() == COMPLETED, attack.refusal()
    assert {name: values for name, values in (await shown(attack)).items() if len(values) > 1} == {}
    await attack.holds()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.representative("15-15"))
        if kind in ("another role", "a search path", "limits")
        else kind
        for kind in HOSTILE
    ],
)
async def test_hostile_settings_give_the_tenant_nothing(kind: str, attack: Attack) -> None:
    await attack.make("planner")
    settings = [setting.format(role=attack.tenant.role) for setting in HOSTILE[kind]]
    database = attack.tenant.database
    await attack.as_tenant(  # all in one session: they apply to the next one
        *(f"ALTER DATABASE {database} SET {setting}" for setting in settings),
        *(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET {setting}" for setting in settings),
    )
    await attack.remember()
    await attack.begin()
    assert await attack.ends() in (COMPLETED, ROLLED_BACK)
    await attack.holds()


async def shown(attack: Attack) -> dict[str, set[str]]:
    """Setting -> its values in a new session, on the pool and on the dedicated server."""
    dedicated = await attack.dedicated()
    assert dedicated is not None
    found: dict[str, set[str]] = {setting.partition(" = ")[0]: set() for setting in SPELT}
    for cluster in (attack.pool, dedicated):
        async with cluster.connect(attack.tenant.database) as connection:
            rows = await connection.fetch(
                "SELECT name, setting FROM pg_settings WHERE lower(name) = ANY($1)", [*found]
            )
            for name, value in rows:
                found[name.lower()].add(value)
    return found
