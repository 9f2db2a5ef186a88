import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from chassis.errors import ServiceUnavailable
from chassis.logs import (
    REDACTED,
    configure_logs,
    describe_exception,
    redact,
    redact_text,
    tell_uncaught_exceptions,
)
from chassis.secret import SecretBytes
from hypothesis import given
from hypothesis import strategies as st
from keyferry.type.v1 import money_pb2

PLANTED = "AAAAA-BBBBB-CCCCC"


def fail() -> None:
    raise ValueError(PLANTED)


class Lines:
    def __init__(self) -> None:
        self.output = io.StringIO()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    lines = Lines()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", lines.output)
        configure_logs("example", "debug")
    yield lines
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize(
    "name",
    [
        "secret", "KEYFERRY_DIGEST_SECRET", "password", "authorization", "Cookie", "page_token", "plaintext_key",
        "serial",
        "content_key_jwe", "recipient_jwk", "KINGUIN_API_KEY", "presigned", "private", "credentials", "url",
    ],
)  # fmt: skip
def test_a_field_with_a_telling_name_is_never_shown(name: str) -> None:
    assert redact(None, "info", {name: PLANTED})[name] == REDACTED
    assert PLANTED not in json.dumps(redact(None, "info", {"outer": {name: [PLANTED]}}))


@pytest.mark.parametrize(
    "value", [PLANTED.encode(), bytearray(PLANTED, "ascii"), SecretBytes(PLANTED.encode()), money_pb2.Money()]
)
def test_bytes_secrets_and_messages_are_never_shown(value: object) -> None:
    assert redact(None, "info", {"harmless": value})["harmless"] == REDACTED


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://r2.example/keys/k?X-Amz-Signature=abc done", "GET https://r2.example/keys/k?<redacted> done"),
        ("postgresql://user:hunter2@db/x", "postgresql://user:<redacted>@db/x"),
        ("got eyJhbGciOiJkaXIifQ..abc.def.ghi", "got <redacted>"),
        ("Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln", "Bearer <redacted>"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_what_is_a_secret_by_its_shape_is_cut_out(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)


def test_numbers_and_names_stay_readable() -> None:
    event = {"order_id": "o-1", "milliseconds": 1.5, "ok": True, "none": None, "list": ["a", 1]}
    assert redact(None, "info", dict(event)) == event


def test_an_exception_is_told_by_type_and_place_only() -> None:
    try:
        try:
            fail()
        except ValueError as error:
            raise ServiceUnavailable("the store does not answer") from error
    except ServiceUnavailable as error:
        text = describe_exception(error)
    assert PLANTED not in text
    assert "ServiceUnavailable: the store does not answer" in text
    assert "builtins.ValueError" in text
    assert "test_logs.py" in text


def test_lines_are_json_with_service_level_and_time(lines: Lines) -> None:
    structlog.get_logger("x").info("something happened", order_id="o-1", token=PLANTED)
    (line,) = lines.read()
    assert line["event"] == "something happened"
    assert (line["service"], line["level"], line["order_id"]) == ("example", "info", "o-1")
    assert line["token"] == REDACTED
    assert line["timestamp"].endswith("Z")


def test_an_exception_never_brings_its_text_into_a_line(lines: Lines) -> None:
    try:
        fail()
    except ValueError as error:
        structlog.get_logger("x").exception("it failed")
        structlog.get_logger("x").error("it failed", exc_info=error)
        structlog.get_logger("x").error("it failed", error=error)
        logging.getLogger("library").exception("it failed")
    output = lines.read()
    assert len(output) == 4
    assert PLANTED not in json.dumps(output)
    assert all("ValueError" in line["exception"] for line in (output[0], output[1], output[3]))


def raise_in_a_thread() -> None:
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


class Unraisable:
    def __del__(self) -> None:
        fail()


@pytest.mark.parametrize("how", ["thread", "finalizer", "main"])
def test_what_nobody_caught_is_told_by_type_and_place_too(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    tell_uncaught_exceptions()
    if how == "thread":
        raise_in_a_thread()
    elif how == "finalizer":
        Unraisable()
    else:
        error = ValueError(PLANTED)
        sys.excepthook(ValueError, error, None)
    (line,) = lines.read()
    assert (line["event"], line["level"]) == ("uncaught exception", "critical")
    assert "ValueError" in line["exception"]
    assert PLANTED not in json.dumps(line) + "".join(capfd.readouterr())


def test_lines_of_libraries_pass_through_the_same_redaction(lines: Lines) -> None:
    logging.getLogger("library").warning("get %s", "https://r2.example/keys/k?X-Amz-Signature=abc")
    logging.getLogger("library").debug("url %s", "postgresql://user:hunter2@db/x", extra={"password": PLANTED})
    output = lines.read()
    assert len(output) == 2
    text = json.dumps(output)
    for secret in ("Signature", "hunter2", PLANTED):
        assert secret not in text
