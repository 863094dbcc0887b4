"""Bytes in and out: every promise of the wire format."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from aio_pika import DeliveryMode
from jsonschema import Draft202012Validator

from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, decode, encode, event_id, new_event, to_message
from rehome_events.errors import EventError, Undecodable, UnknownType
from rehome_events.migration import MigrationFailed, MigrationStopped
from rehome_events.tools.schema import golden, load

INSTANCE = UUID("7d9f2a54-3c1b-4e8a-9a70-5b1d2c3e4f60")
MIGRATION = UUID("3f2b8c4d-5e6f-4071-8293-a4b5c6d7e8f9")
NOW = datetime(2025, 11, 3, 2, 0, 7, 690_000, UTC)


def stopped(**changes: Any) -> CloudEvent[MigrationStopped]:
    data = MigrationStopped(
        instance_id=INSTANCE, replicas=1, stopped_at=NOW, fenced_at=NOW, connections_ended=0
    )
    attributes: dict[str, Any] = {
        "subject": INSTANCE,
        "id": event_id(MIGRATION, 1, "migration.stopped"),
        "time": NOW,
        "migrationid": MIGRATION,
        "attempt": 1,
    }
    return new_event(data, **{**attributes, **changes})


def upgrade() -> dict[str, Any]:
    event: dict[str, Any] = golden("plan.upgraded", 1, "valid")["full"]
    return event


def refusal(
    body: bytes, content_type: str | None = CONTENT_TYPE, headers: dict[str, object] | None = None
) -> str:
    with pytest.raises(Undecodable) as refused:
        decode(body, content_type, headers)
    return str(refused.value)


def test_an_event_comes_back_from_its_bytes_unchanged() -> None:
    event = stopped(
        causationid=uuid4(), traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", replayof=uuid4()
    )
    assert decode(encode(event), CONTENT_TYPE) == event


def test_absent_attributes_are_left_out_and_never_null() -> None:
    body = orjson.loads(encode(stopped()))
    assert "replayof" not in body
    assert None not in body.values()


def test_times_are_written_in_utc() -> None:
    body = orjson.loads(encode(stopped(time=NOW.astimezone(timezone(timedelta(hours=3))))))
    assert body["time"] == "2025-11-03T02:00:07.690000Z"


def test_the_id_of_an_event_is_the_same_for_every_publish_of_it() -> None:
    assert event_id(MIGRATION, 1, "migration.stopped") == event_id(MIGRATION, 1, "migration.stopped")
    others = {event_id(MIGRATION, 2, "migration.stopped"), event_id(MIGRATION, 1, "migration.failed")}
    assert event_id(MIGRATION, 1, "migration.stopped") not in others
    assert event_id(MIGRATION, 1, "migration.stopped").version == 5


def test_the_properties_of_a_message_mirror_the_attributes() -> None:
    message = to_message(stopped())
    assert message.message_id == str(event_id(MIGRATION, 1, "migration.stopped"))
    assert message.type == "migration.stopped"
    assert message.correlation_id == str(MIGRATION)
    assert message.timestamp == NOW
    assert message.app_id == "migrations"
    assert message.content_type == CONTENT_TYPE
    assert message.delivery_mode == DeliveryMode.PERSISTENT


@pytest.mark.parametrize("prefix", ["ce-", "CE-", "ce_", "cloudEvents_", "cloudEvents:", "CLOUDEVENTS_"])
def test_binary_mode_is_read_whatever_the_prefix_of_the_headers(prefix: str) -> None:
    event = upgrade()
    data = orjson.dumps(event.pop("data"))
    event.pop("datacontenttype")
    headers: dict[str, object] = {prefix + name: value for name, value in event.items()}
    headers |= {prefix + "time": datetime(2025, 11, 3, 1, 57, 20, tzinfo=UTC), "x-death": [{"count": 1}]}
    headers[prefix + "subject"] = event["subject"].encode()
    assert decode(data, "application/json", headers) == decode(orjson.dumps(upgrade()), CONTENT_TYPE)


def test_structured_mode_is_recognised_without_its_content_type() -> None:
    assert decode(orjson.dumps(upgrade()), None).type == "plan.upgraded"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b'{"specversion": "1.0", "type', "not JSON", id="cut short"),
        pytest.param(b'{"specversion":"1.0","type":"\xff"}', "not JSON", id="not UTF-8"),
        pytest.param(b'{"specversion":"1.0","type":"\\ud800"}', "not JSON", id="half a surrogate pair"),
        pytest.param(b"[]", "not a JSON object", id="an array"),
        pytest.param(b"{}", "missing attribute: specversion", id="no CloudEvent"),
        pytest.param(b'{"specversion":"1.0"}', "missing attribute: type", id="no type"),
        pytest.param(b'{"specversion":"1.0","type":7}', "attribute type is not text", id="type is a number"),
        pytest.param(b'{"specversion":"1.0","type":"plan.upgraded","data":"x"}', "data: ", id="data is text"),
        pytest.param(
            b'{"specversion":"1.0","type":"plan.upgraded","data_base64":"e30="}', "data_base64", id="base64"
        ),
        pytest.param(b'{"specversion":"1.0","type":"plan.upgraded","x":"\\u0000"}', "NUL", id="NUL"),
        pytest.param(b'{"specversion":"1.0","\\u0000":1}', "NUL", id="NUL in a name"),
        pytest.param(b'{"specversion":"1.0","a":' + b"[" * 40 + b"]" * 40 + b"}", "nested", id="deep"),
        pytest.param(b"[" * 5000, "not JSON", id="absurdly deep"),
        pytest.param(b'"' + b"x" * 1024 * 1024 + b'"', "1048576", id="too large"),
    ],
)
def test_bytes_that_are_no_event_are_refused_with_the_reason(body: bytes, says: str) -> None:
    assert says in refusal(body)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+02:00"])
def test_a_moment_that_no_clock_has_in_utc_is_refused(moment: str) -> None:
    event = upgrade()
    assert "time: " in refusal(orjson.dumps({**event, "time": moment}))
    data = {**event["data"], "not_before": moment}
    assert "years 1 to 9999" in refusal(orjson.dumps({**event, "data": data}))


@pytest.mark.parametrize("priority", [-1, 10, 4.5, "high"])
def test_a_priority_is_a_whole_number_from_0_to_9(priority: object) -> None:
    event = upgrade()
    wrong = {**event["data"], "priority": priority}
    assert "priority: " in refusal(orjson.dumps({**event, "data": wrong}))
    for right in (None, 0, 9):
        body = orjson.dumps({**event, "data": {**event["data"], "priority": right}})
        assert decode(body, CONTENT_TYPE).data.priority == right


def test_another_charset_is_refused() -> None:
    assert "charset" in refusal(orjson.dumps(upgrade()), "application/cloudevents+json; charset=latin-1")


def test_a_batch_is_refused() -> None:
    assert "batch" in refusal(b"[]", "application/cloudevents-batch+json")


def test_a_header_that_is_not_text_is_refused() -> None:
    assert "ce-type" in refusal(b"{}", "application/json", {"ce-specversion": "1.0", "ce-type": b"\xff"})


def test_an_error_never_repeats_the_input() -> None:
    event = upgrade()
    event["data"]["customer_id"] = "postgres://admin:hunter2@pool/db"
    event["data"]["entitlements"]["db_type"] = "hunter2" * 1000
    text = refusal(orjson.dumps(event))
    assert "hunter2" not in text
    assert "data.customer_id" in text
    assert "data.entitlements.db_type" in text


def test_the_error_of_an_event_with_every_field_wrong_stays_short() -> None:
    assert len(refusal(b'{"specversion":"1.0","type":"migration.completed","data":{}}')) <= 700
    unknown = orjson.dumps({"specversion": "1.0", "type": "\u200b" * 500_00})
    assert len(refusal(unknown)) < 200


def test_an_unknown_type_and_an_unknown_version_differ_from_a_malformed_event() -> None:
    with pytest.raises(UnknownType, match=r"plan\.renamed"):
        decode(orjson.dumps({**upgrade(), "type": "plan.renamed"}))
    with pytest.raises(UnknownType, match="version 2"):
        decode(orjson.dumps({**upgrade(), "dataschema": "urn:rehome:events:plan.upgraded:v2"}))


def test_a_dataschema_of_the_publishers_own_means_version_1() -> None:
    assert decode(orjson.dumps({**upgrade(), "dataschema": "https://billing.example/upgrade.json"}))


def test_a_dataschema_of_another_type_is_refused() -> None:
    event = {**upgrade(), "dataschema": "urn:rehome:events:migration.failed:v1"}
    assert "dataschema" in refusal(orjson.dumps(event))


@pytest.mark.parametrize(
    "written",
    ["", ":v", ":v0", ":v01", ":1", ":v1 ", ":v1.0", ":v1000000", ":V1"],
)
def test_a_dataschema_of_ours_that_is_misspelt_is_refused_at_run_time_and_by_the_schema(written: str) -> None:
    event = {**upgrade(), "dataschema": f"urn:rehome:events:plan.upgraded{written}"}
    assert "dataschema begins with urn:rehome:events:, and is not" in refusal(orjson.dumps(event))
    assert list(Draft202012Validator(load("plan.upgraded", 1)).iter_errors(event))


def test_extensions_that_another_publisher_uses_with_another_meaning_are_ignored() -> None:
    malformed = {"causationid": "order-17", "attempt": "first", "migrationid": 4, "traceparent": "none"}
    read = decode(orjson.dumps({**upgrade(), **malformed}))
    assert (read.causationid, read.attempt, read.migrationid, read.traceparent) == (None, None, None, None)


def test_a_malformed_traceparent_is_ignored_in_rehomes_events_but_a_malformed_migration_is_not() -> None:
    body = orjson.loads(encode(stopped()))
    assert decode(orjson.dumps({**body, "traceparent": "none"})).traceparent is None
    assert "migrationid" in refusal(orjson.dumps({**body, "migrationid": "first", "traceparent": "none"}))


def test_the_subject_may_be_in_capitals() -> None:
    assert decode(orjson.dumps({**upgrade(), "subject": str(INSTANCE).upper()}))


def test_an_event_about_another_instance_than_its_subject_cannot_be_made() -> None:
    with pytest.raises(EventError, match="subject"):
        stopped(subject=uuid4())


def test_an_event_whose_data_was_never_validated_is_not_encoded() -> None:
    data = MigrationStopped.model_construct(
        instance_id=INSTANCE, replicas=-1, stopped_at=NOW, fenced_at=NOW, connections_ended=0
    )
    event = new_event(data, subject=INSTANCE, id=uuid4(), time=NOW, migrationid=MIGRATION, attempt=1)
    with pytest.raises(EventError, match="replicas"):
        encode(event)


def test_an_event_of_a_migration_is_not_encoded_without_its_id() -> None:
    with pytest.raises(EventError, match="migrationid"):
        encode(stopped(migrationid=None))


def test_a_text_with_nul_is_not_encoded() -> None:
    data = MigrationFailed.model_construct(
        instance_id=INSTANCE, step="stop", error="X", message="a\x00b", tries=1, next="operator"
    )
    event = new_event(data, subject=INSTANCE, id=uuid4(), time=NOW, migrationid=MIGRATION, attempt=1)
    with pytest.raises(EventError, match="NUL"):
        encode(event)


def test_reading_ignores_what_it_does_not_know() -> None:
    event = upgrade()
    event["data"]["coupon"] = "SPRING"
    event["data"]["entitlements"]["workers"] = 6
    data = decode(orjson.dumps({**event, "partitionkey": "a"})).data
    assert isinstance(data, PlanUpgraded)
    assert not hasattr(data, "coupon")
