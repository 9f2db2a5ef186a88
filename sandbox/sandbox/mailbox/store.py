"""Messages on disk, one file each, named so that their order is the order of their arrival."""

import email
import email.policy
import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

_NAME = re.compile(r"[0-9]{20}-[0-9a-f]{8}")
_SUFFIX = ".eml"
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was received, with the envelope it came in."""

    message_id: str
    received: datetime
    sender: str
    recipients: tuple[str, ...]
    content: EmailMessage

    @property
    def subject(self) -> str:
        """The subject, decoded."""
        return str(self.content.get("Subject", ""))

    @property
    def text(self) -> str:
        """The text part; empty when there is none."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The HTML part; empty when there is none."""
        return self._part("html")

    def _part(self, kind: str) -> str:
        part = self.content.get_body((kind,))
        content = part.get_content() if part is not None else ""
        return content if isinstance(content, str) else ""


class Mailstore:
    """A folder of messages. What `keep` has returned for is on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, content: bytes, *, sender: str, recipients: list[str]) -> str:
        """Store a message and return its name here."""
        message_id = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        envelope = f"X-Envelope-From: {sender}\r\nX-Envelope-To: {', '.join(recipients)}\r\n"
        scratch = self._folder / f".{message_id}"
        with scratch.open("xb") as file:
            file.write(envelope.encode() + content)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(self._path(message_id))
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return message_id

    def list(self) -> list[Message]:
        """Return all messages, the newest first."""
        names = sorted((path.stem for path in self._folder.glob(f"*{_SUFFIX}")), reverse=True)
        return [message for name in names if (message := self.get(name)) is not None]

    def get(self, message_id: str) -> Message | None:
        """Return one message; None when there is none of that name."""
        if not _NAME.fullmatch(message_id):
            return None
        try:
            raw = self._path(message_id).read_bytes()
        except FileNotFoundError:
            return None
        content = email.message_from_bytes(raw, policy=email.policy.default)
        recipients = str(content.get("X-Envelope-To", ""))
        return Message(
            message_id=message_id,
            received=datetime.fromtimestamp(int(message_id.partition("-")[0]) / _NANOSECONDS, UTC),
            sender=str(content.get("X-Envelope-From", "")),
            recipients=tuple(part.strip() for part in recipients.split(",") if part.strip()),
            content=content,
        )

    def clear(self) -> int:
        """Remove every message and return how many there were."""
        paths = list(self._folder.glob(f"*{_SUFFIX}"))
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def _path(self, message_id: str) -> Path:
        return self._folder / f"{message_id}{_SUFFIX}"
