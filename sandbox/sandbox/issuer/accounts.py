"""The people of the sandbox."""

from collections.abc import Mapping
from dataclasses import dataclass

ADMIN_ROLE = "keyferry-admin"


@dataclass(frozen=True, slots=True)
class Account:
    """One person. The subject is the shop's customer id."""

    subject: str
    name: str
    email: str
    locale: str
    roles: tuple[str, ...] = ()

    def claims(self) -> Mapping[str, object]:
        """Return what tokens and userinfo say of the person."""
        return {
            "name": self.name,
            "email": self.email,
            "email_verified": True,
            "locale": self.locale,
            "roles": list(self.roles),
        }


ACCOUNTS: Mapping[str, Account] = {
    account.subject: account
    for account in (
        Account("alice", "Alice Archer", "alice@example.com", "en"),
        Account("bob", "Bob Bauer", "bob@example.com", "de"),
        Account("admin", "Ada Admin", "admin@example.com", "en", (ADMIN_ROLE,)),
    )
}


def account_of(subject: str) -> Account:
    """Return the account; any other subject becomes a customer whose only record is the token itself."""
    return ACCOUNTS.get(subject) or Account(subject, subject, f"{subject}@example.com", "en")
