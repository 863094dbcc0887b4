"""database-service without HTTP: it adds rows to the fake platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rehome_consumer.errors import Refused, TimedOut, Transient, Unreachable
from rehome_consumer.model import Provisioned, Secret

if TYPE_CHECKING:
    from uuid import UUID

    from tests.fakes.platform import FakePlatform

Mood = Literal["well", "fails", "answers too late", "answers garbage"]


class FakeDatabaseService:
    """Port `DatabaseService`.

    Attributes:
        platform: whose `servers` it fills and empties.
        moods: how the next calls of `provision` end, one each; none left: well.
        tells_login: whether the answer holds port, user and password.
        takes_back: whether it can give a server back; the field's cannot.
        reachable: whether it answers.
        calls: how many times a server was asked for.
        postgres_version: of the servers it makes.
    """

    def __init__(self, platform: FakePlatform) -> None:
        self.platform = platform
        self.moods: list[Mood] = []
        self.gives_login = False
        self.takes_back = True
        self.reachable = True
        self.calls = 0
        self.postgres_version = "16"

    async def require_ready(self) -> None:
        if not self.reachable:
            raise Unreachable("database-service does not answer")

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Provisioned:
        await self.require_ready()
        self.calls += 1
        mood = self.moods.pop(0) if self.moods else "well"
        if mood == "fails":
            raise Transient("HTTP 500, failing on purpose")
        if plan_tier not in {"premium", "enterprise"}:
            raise Refused(f"HTTP 400, Plan '{plan_tier}' does not support dedicated database")
        name = f"postgres-dedicated-{instance_id.hex[:8]}"
        if any(row["name"] == name for row in self.platform.servers.values()):
            raise Transient(f"HTTP 500, server {name} exists")
        server = self.platform.add_server(
            name=name,
            server_type="dedicated",
            max_instances=1,
            dedicated_to_customer_id=customer_id,
            dedicated_to_instance_id=instance_id,
            postgres_version=self.postgres_version,
        )
        if mood == "answers too late":
            raise TimedOut("no answer in 600 s; it may have made the server all the same")
        if mood == "answers garbage":
            raise Transient("the answer is not JSON; it may have made the server all the same")
        if self.gives_login:
            login = (f"odoo_{instance_id.hex[:8]}", Secret(f"made-for-{instance_id.hex[:8]}"))
            return Provisioned(server, name, 5432, *login)
        return Provisioned(server, name)

    async def give_back(self, server_id: UUID) -> bool:
        await self.require_ready()
        if not self.takes_back:
            return False
        removed = self.platform.servers.pop(server_id, None)
        for row in self.platform.instances.values():  # as the foreign key does: ON DELETE SET NULL
            if row["db_server_id"] == server_id:
                row["db_server_id"] = None
        return removed is not None
