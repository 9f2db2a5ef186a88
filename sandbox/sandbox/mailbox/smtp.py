"""The SMTP side (RFC 5321): every recipient is accepted, every message kept before it is acknowledged."""

import asyncio

from aiosmtpd.smtp import SMTP, Envelope, Session

from sandbox.mailbox.behavior import Behavior, Mode
from sandbox.mailbox.store import Mailstore

MOST_BYTES = 10 * 1024 * 1024
_HANGUP = "421 4.3.0 closing"


class Keeper:
    """Decides about each message, in the way that aiosmtpd asks its handler."""

    def __init__(self, store: Mailstore, behavior: Behavior) -> None:
        self._store = store
        self._behavior = behavior

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 # aiosmtpd's name
        """Take the message, or do what the present mode says."""
        mode = self._behavior.take()
        if mode is Mode.REFUSE:
            return "550 5.7.1 refused"
        if mode is Mode.DEFER:
            return "451 4.3.0 try again later"
        if mode is not Mode.DROP:
            content = envelope.content if isinstance(envelope.content, bytes) else b""
            await asyncio.to_thread(
                self._store.keep, content, sender=envelope.mail_from or "", recipients=list(envelope.rcpt_tos)
            )
        if mode in (Mode.DROP, Mode.LOSE_ANSWER):
            # What is written to a closed transport goes nowhere.
            if isinstance(server.transport, asyncio.Transport):
                server.transport.abort()
            return _HANGUP
        return "250 2.0.0 kept"


async def serve_smtp(listen: str, store: Mailstore, behavior: Behavior) -> None:
    """Take mail until canceled."""
    host, _, port = listen.rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Keeper(store, behavior), hostname="localhost", data_size_limit=MOST_BYTES, enable_SMTPUTF8=True),
        host=host,
        port=int(port),
    )
    async with server:
        await server.serve_forever()
