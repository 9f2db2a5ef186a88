"""What the mailbox is told."""

from pathlib import Path

from chassis.settings import Address, Settings
from pydantic import Field


class MailboxSettings(Settings):
    """Settings of the mailbox."""

    mailbox_smtp_listen: Address = Field(description="Where it takes mail, host:port.")
    mailbox_http_listen: Address = Field(description="Where it shows mail, host:port.")
    mailbox_folder: Path = Field(description="Where messages are kept, one file each.")
