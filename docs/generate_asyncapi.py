"""Generate docs/asyncapi.yaml and the tables of fields in docs/events.md; with `--check`, only say what is stale.

Everything comes from the contracts and their comments, and from the streams of deploy/nats/streams.yaml. What is
written here by hand is an example value for each field.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_tools import protoc

HERE = Path(__file__).parent
PROTOS = HERE.parent / "protos"
STREAMS = HERE.parent / "deploy" / "nats" / "streams.yaml"
ASYNCAPI = HERE / "asyncapi.yaml"
PAGE = HERE / "events.md"

# The streams in which the shop has a part, and which: all others are between our own services.
SHOP_STREAMS = {"PAYMENTS": "send", "FULFILLMENT": "receive"}
EVENTS = "keyferry.events.v1"
TIMESTAMP = "google.protobuf.Timestamp"
PROTOBUF = "application/vnd.google.protobuf;version=3"
SUBJECT = re.compile(r"Subject `([a-z_.]+)`")
FIELDS = re.compile(r"(<!-- fields of (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)

# By field name; a new field needs one.
EXAMPLES: Mapping[str, object] = {
    "accept_time": "2026-03-01T12:00:02Z",
    "actions": "ACTION_CANCEL",
    "chargeback": False,
    "confirm_time": "2026-03-01T12:00:00Z",
    "country_code": "DE",
    "currency_code": "EUR",
    "customer_id": "customer-7",
    "email": "alice@example.com",
    "external_id": "kf-5d0c6f1e2b7a4c39",
    "item_id": "1",
    # A refund that answers a request names no line.
    "item_ids": None,
    "key_id": "0c0f8a3e-6f6e-4a53-8f57-1c1f3d0f9f10",
    "key_type": "text",
    "locale": "de",
    "minor_units": "1499",
    "offer_id": "65b0c1d2e3f4051627380001",
    "opened_count": 0,
    "order_id": "S-1042",
    "payment_id": "pay-1042",
    "product_id": "65a0c1d2e3f4051627380001",
    "provider": "stripe",
    "quantity": 1,
    "reason": "PURCHASE_REFUSED",
    "refund_id": "refund-1042",
    "refund_request_id": "b4ff0c0a-94f1-5d0c-8a3c-0f5e6f2f7c11",
    "refund_request_ids": "b4ff0c0a-94f1-5d0c-8a3c-0f5e6f2f7c11",
    "refund_time": "2026-03-01T13:00:00Z",
    "supplier_order_id": "PHS84FJAG5U",
}
EXAMPLE_ID = "1f0f2f6e-3c1b-4a6e-9a51-7d1e2c3b4a59"
EXAMPLE_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS: Mapping[str, tuple[str, str]] = {
    "content-type": ("Of the body: `application/protobuf`.", "application/protobuf"),
    "ce-specversion": ("CloudEvents' version: `1.0`.", "1.0"),
    "ce-id": ("The event's id. The same id is the same event, however often it comes.", EXAMPLE_ID),
    "ce-type": ("The full name of the message in the body.", ""),
    "ce-source": ("Who tells it.", ""),
    "ce-time": ("When it happened, RFC 3339.", "2026-03-01T12:00:02Z"),
    "ce-subject": ("What it is about: the order's number; of a refund, the payment's.", ""),
    "Nats-Msg-Id": ("The event's id again: JetStream stores it once within two minutes.", EXAMPLE_ID),
    "traceparent": ("W3C trace context. Optional.", EXAMPLE_TRACE),
}
OPTIONAL_HEADERS = {"traceparent"}
ABOUT = """\
What a shop tells Keyferry and hears from it over NATS JetStream, from the shop's point of view: it *sends* to
`payments.*` and *receives* from `fulfillment.*`. Bodies are binary protobuf, and each message names its proto file;
`x-json-schema` shows the same fields as ProtoJSON, for reading only. Events come at least once and not always in
order: remember each `ce-id` in the transaction of its effect. A person reads docs/events.md and docs/integrate.md.
"""
_JSON_TYPES: Mapping[int, Mapping[str, str]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    # ProtoJSON writes it as a string, because not every reader of JSON has 64 bits.
    FieldDescriptor.TYPE_INT64: {"type": "string", "pattern": "^-?[0-9]+$"},
}
_TYPE_NAMES: Mapping[int, str] = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
}


@dataclass(frozen=True, slots=True)
class Contracts:
    """The compiled contracts. `comments` are by full name of a message, field, enum or value."""

    pool: DescriptorPool
    comments: Mapping[str, str]

    @classmethod
    def compile(cls) -> "Contracts":
        """Compile every proto together with its comments."""
        sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "keyferry").rglob("*.proto"))
        with tempfile.TemporaryDirectory() as scratch:
            target = Path(scratch) / "contracts.binpb"
            status = protoc.main(
                [
                    "protoc",
                    f"--proto_path={PROTOS}",
                    f"--proto_path={files('grpc_tools') / '_proto'}",
                    "--include_imports",
                    "--include_source_info",
                    f"--descriptor_set_out={target}",
                    *sources,
                ]
            )
            if status:
                sys.exit("protoc failed; its message is above")
            compiled = FileDescriptorSet.FromString(target.read_bytes())
        pool = DescriptorPool()
        for file in compiled.file:
            pool.Add(file)
        return cls(pool, {name: text for file in compiled.file for name, text in _comments(file)})

    def shop_events(self, stream: str) -> dict[str, Descriptor]:
        """Return the events of a stream by their subject, in the order of the contracts."""
        (declared,) = [each for each in declared_streams() if each["name"] == stream]
        prefixes = tuple(subject.removesuffix(">") for subject in declared["subjects"])
        found = {
            match.group(1): self.pool.FindMessageTypeByName(name)
            for name, text in self.comments.items()
            if name.startswith(f"{EVENTS}.") and (match := SUBJECT.search(text))
        }
        return {subject: message for subject, message in found.items() if subject.startswith(prefixes)}


def declared_streams() -> list[dict[str, Any]]:
    """Return the streams as they are declared."""
    return list(yaml.safe_load(STREAMS.read_text(encoding="utf-8"))["streams"])


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    texts = {tuple(place.path): " ".join(place.leading_comments.split()) for place in file.source_code_info.location}
    for at, message in enumerate(file.message_type):
        yield from _of_message(message, file.package, (4, at), texts)
    for at, enum in enumerate(file.enum_type):
        yield from _of_enum(enum, file.package, (5, at), texts)


Place = tuple[int, ...]


def _of_message(
    message: DescriptorProto, scope: str, path: Place, texts: Mapping[Place, str]
) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{message.name}"
    yield name, texts.get(path, "")
    for at, field in enumerate(message.field):
        yield f"{name}.{field.name}", texts.get((*path, 2, at), "")


def _of_enum(
    enum: EnumDescriptorProto, scope: str, path: Place, texts: Mapping[Place, str]
) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{enum.name}"
    yield name, texts.get(path, "")
    for at, value in enumerate(enum.value):
        yield f"{name}.{value.name}", texts.get((*path, 2, at), "")


def used_by(message: Descriptor) -> Iterator[Descriptor | EnumDescriptor]:
    """Yield the message and, after it, every message and enum of ours that its fields need."""
    yield message
    for field in message.fields:
        if field.enum_type is not None:
            yield field.enum_type
        elif field.message_type is not None and field.message_type.full_name != TIMESTAMP:
            yield from used_by(field.message_type)


def json_schema(thing: Descriptor | EnumDescriptor, contracts: Contracts) -> dict[str, Any]:
    """Render a message or an enum as its ProtoJSON looks."""
    text = contracts.comments[thing.full_name]
    if isinstance(thing, EnumDescriptor):
        values = {value.name: contracts.comments[f"{thing.full_name}.{value.name}"] for value in thing.values}
        meanings = "\n".join(f"- `{name}`: {meaning}" for name, meaning in values.items())
        return {"type": "string", "description": f"{text}\n\n{meanings}\n", "enum": list(values)}
    properties = {field.name: _field_schema(field, contracts) for field in thing.fields}
    required = [name for name, schema in properties.items() if "REQUIRED." in schema["description"]]
    schema: dict[str, Any] = {"type": "object", "description": text, "properties": properties}
    return schema | ({"required": required} if required else {})


def _field_schema(field: FieldDescriptor, contracts: Contracts) -> dict[str, Any]:
    nested = field.enum_type or field.message_type
    if nested is None:
        one: dict[str, Any] = dict(_JSON_TYPES[field.type])
    elif nested.full_name == TIMESTAMP:
        one = {"type": "string", "format": "date-time"}
    else:
        one = {"$ref": f"#/components/schemas/{nested.name}"}
    described = {"description": contracts.comments[field.full_name]}
    if field.is_repeated:
        return described | {"type": "array", "items": one}
    # What stands beside a $ref is ignored by many readers.
    return described | ({"allOf": [one]} if "$ref" in one else one)


def example_of(message: Descriptor) -> dict[str, Any]:
    """Return an example of a message as ProtoJSON."""
    return {field.name: _example_value(field) for field in message.fields}


def _example_value(field: FieldDescriptor) -> object:
    if field.message_type is None or field.message_type.full_name == TIMESTAMP:
        value = EXAMPLES[field.name]
    else:
        value = example_of(field.message_type)
    if field.is_repeated:
        return [] if value is None else [value]
    return value


def _message(message: Descriptor, action: str, contracts: Contracts) -> dict[str, Any]:
    about = EXAMPLES["payment_id" if message.name == "PaymentRefunded" else "order_id"]
    source = "/shop/checkout" if action == "send" else "/keyferry/fulfillment"
    own = {"ce-type": message.full_name, "ce-source": source, "ce-subject": about}
    text = contracts.comments[message.full_name]
    return {
        "name": message.full_name,
        "title": message.name,
        "summary": text.partition(". ")[0].removesuffix(".") + ".",
        "description": text,
        "contentType": "application/protobuf",
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEvent"},
                {"type": "object", "properties": {"ce-type": {"type": "string", "const": message.full_name}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{_file_key(message)}"},
        "x-json-schema": {"$ref": f"#/components/schemas/{message.name}"},
        "examples": [
            {
                "name": "all_fields",
                "summary": "As ProtoJSON; on the wire the body is binary.",
                "headers": {name: own.get(name, value) for name, (_, value) in HEADERS.items()},
                "payload": example_of(message),
            }
        ],
    }


def _file_key(thing: Descriptor | EnumDescriptor) -> str:
    return Path(thing.file.name).name.replace(".", "_")


def _cloud_event() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "CloudEvents 1.0 in binary mode, as NATS headers.",
        "properties": {name: {"type": "string", "description": meaning} for name, (meaning, _) in HEADERS.items()},
        "required": [name for name in HEADERS if name not in OPTIONAL_HEADERS],
    }


def asyncapi(contracts: Contracts) -> dict[str, Any]:
    """Return the whole document."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {"CloudEvent": _cloud_event()}
    for stream, action in SHOP_STREAMS.items():
        for subject, message in contracts.shop_events(stream).items():
            # Ids of letters only: many readers take no dot in them.
            channel = message.name[0].lower() + message.name[1:]
            messages[message.name] = _message(message, action, contracts)
            channels[channel] = {
                "address": subject,
                "title": message.name,
                "description": f"JetStream stream `{stream}`. {contracts.comments[message.full_name]}",
                "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"}},
            }
            operations[f"{action}{message.name}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "summary": messages[message.name]["summary"],
                "messages": [{"$ref": f"#/channels/{channel}/messages/{message.name}"}],
            }
            for thing in used_by(message):
                schemas[thing.name] = json_schema(thing, contracts)
                source = (PROTOS / thing.file.name).read_text(encoding="utf-8")
                schemas[_file_key(thing)] = {"schemaFormat": PROTOBUF, "schema": source}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Keyferry's events for a shop", "version": "1.0.0", "description": ABOUT},
        "defaultContentType": "application/protobuf",
        "servers": {
            "nats": {
                "host": "nats.example:4222",
                "protocol": "nats",
                "description": "JetStream. In the sandbox its address is `nats` in `.sandbox/endpoints.json`.",
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": dict(sorted(schemas.items()))},
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 # PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def render(contracts: Contracts) -> str:
    """Return docs/asyncapi.yaml."""
    head = "# Generated from protos/ and deploy/nats/streams.yaml: `make asyncapi`.\n"
    return head + yaml.dump(asyncapi(contracts), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def render_page(page: str, contracts: Contracts) -> str:
    """Return docs/events.md with its tables of fields as the contracts are now."""
    known = {
        thing.name: thing
        for stream in SHOP_STREAMS
        for message in contracts.shop_events(stream).values()
        for thing in used_by(message)
    }
    return FIELDS.sub(lambda match: match[1] + _table(known[match[2]], contracts) + match[3], page)


def _table(thing: Descriptor | EnumDescriptor, contracts: Contracts) -> str:
    if isinstance(thing, EnumDescriptor):
        rows = [f"| `{it.name}` | {contracts.comments[f'{thing.full_name}.{it.name}']} |" for it in thing.values]
        return "\n".join(["| value | meaning |", "|---|---|", *rows, ""])
    rows = [
        f"| `{field.name}` | {_type_name(field)} | {contracts.comments[field.full_name]} |" for field in thing.fields
    ]
    return "\n".join(["| field | type | meaning |", "|---|---|---|", *rows, ""])


def _type_name(field: FieldDescriptor) -> str:
    nested = field.enum_type or field.message_type
    if nested is None:
        name = _TYPE_NAMES[field.type]
    else:
        name = nested.name if nested.full_name == TIMESTAMP else f"[{nested.name}](#{nested.name.lower()})"
    return f"list of {name}" if field.is_repeated else name


def main() -> None:
    """Write both files, or compare them with what they should be."""
    contracts = Contracts.compile()
    fresh = {ASYNCAPI: render(contracts), PAGE: render_page(PAGE.read_text(encoding="utf-8"), contracts)}
    if "--check" in sys.argv:
        stale = [path.name for path, text in fresh.items() if path.read_text(encoding="utf-8") != text]
        sys.exit(f"stale: {', '.join(stale)}; run `make asyncapi`" if stale else 0)
    for path, text in fresh.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
