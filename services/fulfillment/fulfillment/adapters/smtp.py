"""The mail server, over SMTP."""

import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

import aiosmtplib
from chassis.deadline import bounded

from fulfillment.ports.mail import Letter, MailDelayed, MailRefused

CALL_SECONDS = 15.0
SEND_SECONDS = 30.0
_PERMANENT = range(500, 600)


class SmtpMailer:
    """Sends letters one at a time, each on a connection of its own."""

    def __init__(self, url: str, *, sender: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._implicit_tls = parts.scheme == "smtps"
        self._port = parts.port or (465 if self._implicit_tls else 25)
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._sender = sender
        # Made once: reading the machine's certificates costs more than sending a letter.
        self._tls = ssl.create_default_context()

    async def send(self, letter: Letter) -> None:
        """Hand over a letter.

        Raises MailRefused for a permanent no to this very letter, MailDelayed for everything else: a wrong password
        or a sender that is not let in is mended some day, and then every letter goes out.
        """
        try:
            message = self._message(letter)
        except ValueError as error:
            raise MailRefused(f"not an address: {type(error).__name__}") from None
        try:
            async with bounded(SEND_SECONDS):
                await aiosmtplib.send(
                    message,
                    hostname=self._host,
                    port=self._port,
                    username=self._user,
                    password=self._password,
                    use_tls=self._implicit_tls,
                    # STARTTLS wherever it is offered.
                    start_tls=None,
                    tls_context=self._tls,
                    timeout=CALL_SECONDS,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = {refused.code for refused in error.recipients}
            raise (MailRefused if all(code in _PERMANENT for code in codes) else MailDelayed)(str(min(codes))) from None
        except aiosmtplib.SMTPDataError as error:
            raise (MailRefused if error.code in _PERMANENT else MailDelayed)(str(error.code)) from None
        except aiosmtplib.SMTPResponseException as error:
            raise MailDelayed(str(error.code)) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailDelayed(type(error).__name__) from None

    def _message(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = Address(addr_spec=letter.to)
        message["Subject"] = letter.subject
        message["Message-ID"] = letter.message_id
        message["Date"] = formatdate(usegmt=True)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text)
        message.add_alternative(letter.html, subtype="html")
        return message
