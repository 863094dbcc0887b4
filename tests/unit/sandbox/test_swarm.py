"""Parts of the Swarm sandbox that need no engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from sandbox.swarm import api
from sandbox.swarm.images import DOCKERFILE, consumer_settings
from sandbox.swarm.logs import entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENTRIES = (b"first line\n", b"", b"x" * 300 + b"\n")


def test_the_consumers_image_takes_the_settings_of_the_last_stage_and_its_base() -> None:
    settings = consumer_settings(DOCKERFILE.read_text())
    assert settings[-2:] == ['ENTRYPOINT ["rehome"]', 'CMD ["run"]']
    assert "USER rehome" in settings
    assert [setting for setting in settings if setting.startswith("ENV PYTHONUNBUFFERED=1")]
    assert (
        len([setting for setting in settings if setting.startswith("HEALTHCHECK") and "CMD [" in setting])
        == 1
    )
    assert not any("sandbox" in setting or setting.endswith("\\") for setting in settings)


@pytest.mark.parametrize("size", [1, 7, 8, 1000])
async def test_a_log_is_put_together_however_its_pieces_are_split(size: int) -> None:
    raw = b"".join(b"\1\0\0\0" + len(entry).to_bytes(4, "big") + entry for entry in ENTRIES)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), size):
            yield raw[start : start + size]

    assert [entry async for entry in entries(pieces())] == list(ENTRIES)


class Manager:
    """Keeps one node, and changes it by itself after each of the first `news` times that it is read."""

    def __init__(self, news: int) -> None:
        self._news = news
        self.version = 7
        self.spec: dict[str, object] = {"Role": "manager", "Labels": {}}

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            read = {"Version": {"Index": self.version}, "Spec": self.spec}
            if self._news > 0:
                self._news -= 1
                self.version += 1
            return httpx.Response(200, json=read)
        if int(request.url.params["version"]) != self.version:
            return httpx.Response(500, json={"message": "rpc error: desc = update out of sequence"})
        self.version += 1
        self.spec = json.loads(request.content)
        return httpx.Response(200)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "EDIT_PAUSE_SECONDS", 0)


async def edit(manager: Manager) -> None:
    engine = api.EngineApi(Path("unused"))
    await engine.http.aclose()
    engine.http = httpx.AsyncClient(base_url="http://docker", transport=httpx.MockTransport(manager.answer))
    async with engine.http:
        await engine.edit("nodes/one", lambda spec: {**spec, "Availability": "drain"})


@pytest.mark.usefixtures("fast")
async def test_what_the_manager_changed_meanwhile_is_read_and_edited_again() -> None:
    manager = Manager(news=2)
    await edit(manager)
    assert manager.spec == {"Role": "manager", "Labels": {}, "Availability": "drain"}


@pytest.mark.usefixtures("fast")
async def test_an_object_that_never_stays_as_it_is_ends_the_edit_with_the_engines_words() -> None:
    with pytest.raises(RuntimeError, match=r"POST /nodes/one/update: 500 .*update out of sequence"):
        await edit(Manager(news=1000))
