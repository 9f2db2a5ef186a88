"""The mailbox as a process."""

import asyncio
from functools import partial

from chassis.settings import load_or_exit

from sandbox.mailbox.app import Mailbox
from sandbox.mailbox.behavior import Behavior
from sandbox.mailbox.config import MailboxSettings
from sandbox.mailbox.smtp import serve_smtp
from sandbox.mailbox.store import Mailstore
from sandbox.web import serve


def main() -> None:
    """Take and show mail until told to stop."""
    settings = load_or_exit(MailboxSettings)
    store, behavior = Mailstore(settings.mailbox_folder), Behavior()
    asyncio.run(
        serve(
            Mailbox(store, behavior).application(),
            settings.mailbox_http_listen,
            beside=partial(serve_smtp, settings.mailbox_smtp_listen, store, behavior),
        )
    )


if __name__ == "__main__":
    main()
