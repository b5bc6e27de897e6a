"""Handing in mail (RFC 6409), with time limits; plain text on the wire is for this machine only."""

import smtplib
import ssl
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import EmailMessage

from quotary.errors import CannotTell, Usage
from quotary.net.transport import is_loopback

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """Who takes the mail.

    tls:   ``starttls``, ``tls``, or ``none``, which only a server on this machine gets
    login: user and password, or None
    """

    host: str
    port: int
    tls: str
    login: tuple[str, str] | None = None


def send_mail(server: MailServer, message: EmailMessage) -> None:
    """Return when the server took the message for every recipient, else raise ``CannotTell``."""
    if server.tls == "none" and not is_loopback(server.host):
        raise Usage(
            f"mail without TLS is only for this machine, found {server.host}", next_command="use starttls"
        )
    try:
        with _connected(server) as connection:
            if server.tls == "starttls":
                connection.starttls(context=ssl.create_default_context())
            if server.login is not None:
                connection.login(*server.login)
            refused = connection.send_message(message)
    except (smtplib.SMTPException, OSError) as error:
        raise CannotTell(f"{server.host}:{server.port} did not take the mail: {_line(error)}") from error
    if refused:
        raise CannotTell(f"{server.host}:{server.port} refused the recipients {', '.join(sorted(refused))}")


def _connected(server: MailServer) -> AbstractContextManager[smtplib.SMTP]:
    if server.tls == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(server.host, server.port, timeout=SECONDS, context=context)
    return smtplib.SMTP(server.host, server.port, timeout=SECONDS)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
