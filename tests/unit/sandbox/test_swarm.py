"""Parts of the Swarm sandbox that need no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
