"""What the contract suites share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.contract.platform_tables import FakeTables, PostgresTables, Tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.platform_db import Platform


@pytest.fixture(scope="module")
async def real_tables(platform: Platform) -> AsyncIterator[PostgresTables]:
    """The platform's tables in PostgreSQL, seen through the consumer's own role."""
    async with (
        asyncpg.create_pool(platform.instance_dsn, min_size=0, max_size=4) as instances,
        asyncpg.create_pool(platform.billing_dsn, min_size=0, max_size=1) as billing,
    ):
        yield PostgresTables(platform, instances, billing)


@pytest.fixture(params=["fake", "postgresql"])
def tables(request: pytest.FixtureRequest, real_tables: PostgresTables) -> Tables:
    """The fake's tables, and the real ones."""
    return FakeTables() if request.param == "fake" else real_tables
