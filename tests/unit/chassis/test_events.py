import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from chassis.events import Event, MalformedEvent, derived_event_id, new_event_id
from keyferry.type.v1 import money_pb2

BODY = money_pb2.Money(currency_code="EUR", minor_units=5)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def an_event(**changes: str) -> Event:
    return Event.of(
        BODY, event_id=changes.get("event_id", "e-1"), subject="payments.confirmed", source="shop", about="o-1",
        time=NOON.astimezone(timezone(timedelta(hours=2))),
    )  # fmt: skip


def test_attributes_travel_as_cloudevents_binary_mode_headers() -> None:
    assert an_event().headers() == {
        "ce-specversion": "1.0",
        "ce-id": "e-1",
        "ce-type": "keyferry.type.v1.Money",
        "ce-source": "/keyferry/shop",
        "ce-time": "2026-01-02T12:00:00Z",
        "ce-subject": "o-1",
        "content-type": "application/protobuf",
        "Nats-Msg-Id": "e-1",
    }


def test_an_event_reads_back_whatever_the_case_of_its_headers() -> None:
    event = an_event()
    for spell in (str, str.upper, str.title):
        headers = {spell(name): value for name, value in event.headers().items()}
        assert Event.parse(subject=event.subject, headers=headers, data=event.data) == event


@pytest.mark.parametrize("name", ["ce-id", "ce-type", "ce-source"])
@pytest.mark.parametrize("value", [None, ""])
def test_an_attribute_that_must_be_there_is_missed(name: str, value: str | None) -> None:
    headers = {key: given for key, given in an_event().headers().items() if key != name}
    if value is not None:
        headers[name] = value
    with pytest.raises(MalformedEvent, match=name):
        Event.parse(subject="s", headers=headers, data=b"")


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"content-type": "application/json"}, "content-type"), ({"ce-time": "yesterday"}, "ce-time")],
)
def test_an_attribute_that_is_wrong_is_told(changes: dict[str, str], why: str) -> None:
    with pytest.raises(MalformedEvent, match=why):
        Event.parse(subject="s", headers={**an_event().headers(), **changes}, data=b"")


def test_a_message_without_headers_is_malformed() -> None:
    with pytest.raises(MalformedEvent):
        Event.parse(subject="s", headers=None, data=b"")


def test_a_time_without_a_zone_is_taken_as_utc_and_a_missing_one_as_now() -> None:
    headers = an_event().headers()
    bare = Event.parse(subject="s", headers={**headers, "ce-time": "2026-01-02T12:00:00"}, data=b"")
    assert bare.time == NOON
    del headers["ce-time"]
    assert datetime.now(UTC) - Event.parse(subject="s", headers=headers, data=b"").time < timedelta(minutes=1)


def test_a_trace_travels_along() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = Event.parse(subject="s", headers={**an_event().headers(), "Traceparent": trace}, data=b"")
    assert event.headers()["traceparent"] == trace


def test_the_same_fact_has_the_same_id_for_ever() -> None:
    assert derived_event_id("payment", "p-1") == "a098844a-8ce1-5d92-8d75-880b3a1c34e4"
    assert derived_event_id("payment", "p-1") != derived_event_id("paymentp", "-1")
    assert uuid.UUID(new_event_id()).version == 4
