"""A second version of a type passes the release check, and is in every document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rehome_events.envelope import schema_urn
from rehome_events.tools import asyncapi, page
from rehome_events.tools.released import incompatible, release, released, tampered
from rehome_events.tools.schema import drift, load
from tests.support.second_versions import next_release, next_schemas

KIND = "migration.completed"
OFFICIAL = Path(__file__).parent / "asyncapi" / "asyncapi-3.0.0.json"


@pytest.fixture
def schemas(tmp_path: Path) -> Iterator[Path]:
    """The schemas of the next release, not released yet."""
    with next_schemas(tmp_path / "schemas") as directory:
        yield directory


def document() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(asyncapi.render(asyncapi.generate()))
    return read


def test_a_second_version_breaks_nothing_and_drifts_from_nothing(schemas: Path) -> None:
    with next_release():
        assert drift() == incompatible(schemas) == tampered(schemas) == []


def test_a_second_version_is_released_beside_the_first(schemas: Path) -> None:
    with next_release():
        new = release(schemas)
        assert f"released/{KIND}/v2.json" in new
        assert f"{KIND}/valid/v2-full.json" in new
        assert {version for kind, version in released(schemas) if kind == KIND} == {1, 2}
        assert release(schemas) == []


def test_a_retired_version_must_still_respect_its_release(schemas: Path) -> None:
    with next_release():
        release(schemas)
    with next_release(beside=False):
        assert incompatible(schemas) == []


def test_a_version_that_is_no_longer_read_is_a_break(schemas: Path) -> None:
    with next_release():
        release(schemas)
    assert incompatible(schemas) == [f"{KIND} v2: withdrawn", "migration.stopped v2: withdrawn"]


@pytest.mark.usefixtures("schemas")
def test_the_schema_of_each_version_names_it() -> None:
    for version in (1, 2):
        assert load(KIND, version)["properties"]["dataschema"]["const"] == schema_urn(KIND, version)


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(("beside", "versions"), [(True, [2, 1]), (False, [2])])
def test_the_asyncapi_document_has_every_version_that_is_published(beside: bool, versions: list[int]) -> None:
    with next_release(beside=beside):
        read = document()
    jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text())).validate(read)
    assert list(read["channels"][KIND]["messages"]) == [f"{KIND}.v{version}" for version in versions]
    for version in versions:
        message = read["components"]["messages"][f"{KIND}.v{version}"]
        assert message["payload"]["schema"]["$ref"] == f"./schemas/{KIND}/v{version}.json"


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(("beside", "versions"), [(True, [2, 1]), (False, [2])])
def test_the_page_has_every_version_that_is_published(beside: bool, versions: list[int]) -> None:
    with next_release(beside=beside):
        titles = [line for line in page.render().splitlines() if line.startswith(f"## {KIND} v")]
    assert titles == [f"## {KIND} v{version}" for version in versions]
