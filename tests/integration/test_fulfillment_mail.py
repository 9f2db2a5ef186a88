"""What fulfillment makes of a mail server's answers, each said by a server that reads its lines from a script."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from fulfillment.adapters.smtp import SmtpMailer
from fulfillment.ports.mail import Letter, MailDelayed, MailRefused

LETTER = Letter("<id@shop.example>", "alice@example.com", "Your order order-1 is ready", "text", "<p>html</p>")
POLITE = {"": "220 hello", "EHLO": "250 HELP", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go on", ".": "250 kept"}


@asynccontextmanager
async def a_server(answers: Mapping[str, str], *, scheme: str = "smtp", user: str = "") -> AsyncIterator[SmtpMailer]:
    """Serve one script: what is said on connecting, and to each command."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_data, command = False, ""
        while answer := answers.get(command, "250 ok"):
            if not is_data or command == ".":
                writer.write(f"{answer}\r\n".encode())
                await writer.drain()
                is_data = command == "DATA" and answer.startswith("354")
            line = await reader.readline()
            if not line:
                break
            text = line.decode().strip()
            command = text if is_data else text.partition(" ")[0].upper()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield SmtpMailer(f"{scheme}://{user}127.0.0.1:{port}", sender="Keys <keys@shop.example>")


async def test_a_polite_server_takes_it() -> None:
    async with a_server(POLITE) as mailer:
        await mailer.send(LETTER)


@pytest.mark.parametrize(("command", "answer"), [("RCPT", "550 no such user"), (".", "554 spam")])
async def test_a_clear_no_to_this_letter_is_for_ever(command: str, answer: str) -> None:
    async with a_server({**POLITE, command: answer}) as mailer:
        with pytest.raises(MailRefused, match=answer[:3]):
            await mailer.send(LETTER)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("", "554 we talk to nobody"),
        ("", "421 later"),
        ("EHLO", "502 what"),
        ("MAIL", "550 we do not know you"),
        ("RCPT", "450 greylisted"),
        ("DATA", "451 no room"),
        (".", "451 no room"),
        ("DATA", ""),
        (".", ""),
    ],
)
async def test_whatever_may_be_mended_is_tried_again(command: str, answer: str) -> None:
    answers = {**POLITE, "HELO": "502 what", command: answer}
    async with a_server(answers) as mailer:
        with pytest.raises(MailDelayed):
            await mailer.send(LETTER)


async def test_a_wrong_password_is_mended_some_day_and_is_not_told() -> None:
    answers = {**POLITE, "EHLO": "250-hello\r\n250 AUTH PLAIN", "AUTH": "535 wrong"}
    async with a_server(answers, user="keys:word-of-the-mail@") as mailer:
        with pytest.raises(MailDelayed) as raised:
            await mailer.send(LETTER)
    assert str(raised.value) == "535"


async def test_nobody_at_the_address_is_tried_again() -> None:
    async with a_server(POLITE) as mailer:
        pass
    with pytest.raises(MailDelayed):
        await mailer.send(LETTER)


@pytest.mark.parametrize("address", ["a..b@example.com", "jörg@example.com"])
async def test_what_is_no_address_is_refused_before_anybody_is_called(address: str) -> None:
    mailer = SmtpMailer("smtp://127.0.0.1:1", sender="Keys <keys@shop.example>")
    with pytest.raises(MailRefused) as raised:
        await mailer.send(Letter("<id@shop.example>", address, "s", "t", "h"))
    assert address not in str(raised.value)
