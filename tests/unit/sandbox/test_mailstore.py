from pathlib import Path

import pytest
from sandbox.mailbox.behavior import Behavior, Mode
from sandbox.mailbox.store import Mailstore

MAIL = (
    b"From: Keyferry <keys@example.com>\r\nTo: alice@example.com\r\nSubject: =?utf-8?q?Sch=C3=B6n?=\r\n"
    b"Message-ID: <1@keyferry>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Gr\xc3\xbc\xc3\x9fe</p>\r\n--b--\r\n"
)


def test_a_message_is_kept_with_its_envelope(tmp_path: Path) -> None:
    store = Mailstore(tmp_path)
    message_id = store.keep(MAIL, sender="bounces@example.com", recipients=["alice@example.com", "bob@example.com"])
    message = store.get(message_id)
    assert message is not None
    assert (message.sender, message.recipients) == ("bounces@example.com", ("alice@example.com", "bob@example.com"))
    assert message.subject == "Schön"
    assert message.text.strip() == "Grüße"
    assert message.html.strip() == "<p>Grüße</p>"


def test_messages_outlive_the_process_and_the_newest_is_first(tmp_path: Path) -> None:
    first = Mailstore(tmp_path).keep(MAIL, sender="a@example.com", recipients=["b@example.com"])
    second = Mailstore(tmp_path).keep(MAIL, sender="a@example.com", recipients=["b@example.com"])
    assert [message.message_id for message in Mailstore(tmp_path).list()] == [second, first]


@pytest.mark.parametrize("name", ["", "../secrets", "00000000000000000000-ffffffff", "x" * 29])
def test_only_names_of_messages_are_looked_up(tmp_path: Path, name: str) -> None:
    (tmp_path.parent / "secrets.eml").write_bytes(MAIL)
    assert Mailstore(tmp_path).get(name) is None


def test_clearing_says_how_many_there_were(tmp_path: Path) -> None:
    store = Mailstore(tmp_path)
    store.keep(MAIL, sender="a@example.com", recipients=["b@example.com"])
    assert store.clear() == 1
    assert store.list() == []


def test_a_message_without_parts_is_shown_empty(tmp_path: Path) -> None:
    store = Mailstore(tmp_path)
    message = store.get(store.keep(b"\r\n", sender="", recipients=[]))
    assert message is not None
    assert (message.subject, message.text.strip(), message.html) == ("", "", "")


def test_a_bad_mood_lasts_as_long_as_asked_for() -> None:
    behavior = Behavior()
    behavior.set(Mode.DEFER, 2)
    assert [behavior.take() for _ in range(3)] == [Mode.DEFER, Mode.DEFER, Mode.ACCEPT]
    behavior.set(Mode.REFUSE, None)
    assert {behavior.take() for _ in range(5)} == {Mode.REFUSE}
