"""What a shop reads about events must be what the contracts and the streams say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from docs.generate_asyncapi import (
    ASYNCAPI,
    PAGE,
    PROTOS,
    SHOP_STREAMS,
    Contracts,
    declared_streams,
    render,
    render_page,
    used_by,
)

CONTRACTS = Contracts.compile()
DOCUMENT: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text(encoding="utf-8"))
TEXT = PAGE.read_text(encoding="utf-8")
EVENTS: dict[str, Descriptor] = {
    subject: message for stream in SHOP_STREAMS for subject, message in CONTRACTS.shop_events(stream).items()
}
MESSAGES = {message.name: message for message in EVENTS.values()}
ROOT = Path(__file__).parents[3]


def every_ref(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from every_ref(child)
    elif isinstance(node, list):
        for child in node:
            yield from every_ref(child)


def resolved(reference: str) -> Any:
    node: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def standing_alone(schema: object) -> dict[str, Any]:
    """Return a schema together with those that it refers to."""
    return {"allOf": [schema], "components": {"schemas": DOCUMENT["components"]["schemas"]}}


def test_neither_file_is_stale() -> None:
    assert ASYNCAPI.read_text(encoding="utf-8") == render(CONTRACTS), "run `make asyncapi`"
    assert render_page(TEXT, CONTRACTS) == TEXT, "run `make asyncapi`"


def test_it_is_asyncapi_3_with_everything_it_refers_to() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["info"].keys() >= {"title", "version"}
    assert all(server.keys() >= {"host", "protocol"} for server in DOCUMENT["servers"].values())
    for reference in every_ref(DOCUMENT):
        assert reference.startswith("#/"), reference
        assert resolved(reference)
    ids = [
        *DOCUMENT["channels"],
        *DOCUMENT["operations"],
        *(key for kind in DOCUMENT["components"].values() for key in kind),
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", each) for each in ids)


def test_every_channel_has_one_operation_and_its_message() -> None:
    used = []
    for operation in DOCUMENT["operations"].values():
        channel = resolved(operation["channel"]["$ref"])
        (message,) = operation["messages"]
        assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
        assert resolved(resolved(message["$ref"])["$ref"])["title"] == channel["title"]
        used.append(channel["address"])
    assert sorted(used) == sorted(channel["address"] for channel in DOCUMENT["channels"].values())


def test_every_subject_between_the_shop_and_us_is_there_and_no_other() -> None:
    addresses = {channel["address"]: channel["title"] for channel in DOCUMENT["channels"].values()}
    assert addresses == {subject: message.name for subject, message in EVENTS.items()}
    streams = {stream["name"]: stream for stream in declared_streams()}
    shop = [subject.removesuffix(">") for stream in SHOP_STREAMS for subject in streams[stream]["subjects"]]
    assert all(address.startswith(tuple(shop)) for address in addresses)
    consumed = [
        subject
        for stream in SHOP_STREAMS
        for consumer in streams[stream].get("consumers", ())
        for subject in consumer["subjects"]
    ]
    assert set(consumed) <= addresses.keys()


def test_an_event_of_ours_that_names_no_stream_of_the_file_is_noticed() -> None:
    """A subject written differently in a contract would otherwise be missing here without a word."""
    prefixes = tuple(subject.removesuffix(">") for stream in declared_streams() for subject in stream["subjects"])
    named = [
        match
        for name, text in CONTRACTS.comments.items()
        if name.startswith("keyferry.events.v1.")
        for match in re.findall(r"[Ss]ubject `([^`]+)`", text)
    ]
    assert len(named) == len(set(named))
    assert all(subject.startswith(prefixes) for subject in named)
    told = {
        subject
        for path in (ROOT / "services" / "fulfillment").rglob("*.py")
        for subject in re.findall(r"\"(fulfillment\.[a-z_]+)\",", path.read_text(encoding="utf-8"))
    }
    assert told
    assert told <= EVENTS.keys()


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_is_described_and_typed(name: str) -> None:
    for thing in used_by(MESSAGES[name]):
        schema = DOCUMENT["components"]["schemas"][thing.name]
        assert schema["description"]
        if isinstance(thing, Descriptor):
            assert list(schema["properties"]) == [field.name for field in thing.fields]
            assert all(one["description"] for one in schema["properties"].values())
        else:
            assert schema["enum"] == [value.name for value in thing.values]
            assert all(f"`{value.name}`: " in schema["description"] for value in thing.values)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_example_is_what_it_exemplifies(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    (example,) = message["examples"]
    for schema, value in ((message["headers"], example["headers"]), (message["x-json-schema"], example["payload"])):
        standing = standing_alone(schema)
        jsonschema_rs.meta.validate(standing)
        jsonschema_rs.validate(standing, value)
    read = ParseDict(example["payload"], GetMessageClass(MESSAGES[name])())
    again = MessageToDict(read, preserving_proto_field_name=True)
    assert again == without_defaults(example["payload"])


def without_defaults(payload: dict[str, Any]) -> dict[str, Any]:
    """Leave out what ProtoJSON leaves out."""
    found = {key: without_defaults(value) if isinstance(value, dict) else value for key, value in payload.items()}
    return {key: value for key, value in found.items() if value not in ([], 0, False, "")}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_payload_is_the_proto_file(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    payload = resolved(message["payload"]["$ref"])
    assert payload["schemaFormat"] == "application/vnd.google.protobuf;version=3"
    assert payload["schema"] == (PROTOS / MESSAGES[name].file.name).read_text(encoding="utf-8")
    assert message["name"] == MESSAGES[name].full_name


@pytest.mark.parametrize("subject", EVENTS)
def test_the_page_has_a_full_row_and_a_section_for_every_subject(subject: str) -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{subject}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    name = EVENTS[subject].name
    assert cells[1] == f"[{name}](#{name.lower()})"
    assert len(cells) == 5
    assert all(cells)
    section = TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert f"`{subject}`" in section
    assert f"<!-- fields of {name} -->" in section


def test_the_page_has_the_fields_of_every_part_and_no_subject_beyond() -> None:
    parts = {thing.name for message in EVENTS.values() for thing in used_by(message)}
    tables = re.findall(r"<!-- fields of (\w+) -->", TEXT)
    assert sorted(tables) == sorted(parts)
    assert set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", TEXT, flags=re.MULTILINE)) == EVENTS.keys()
    for name in re.findall(r"\]\(#(\w+)\)", TEXT):
        assert re.search(rf"^##+ {name}$", TEXT, flags=re.MULTILINE | re.IGNORECASE), name
