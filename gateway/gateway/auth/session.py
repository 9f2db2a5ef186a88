"""The session of a person in a browser: all of it is in one encrypted cookie, but for a list of those ended."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from chassis.clock import Clock
from chassis.keyring import Keyring

from gateway.auth.cookies import MAXIMUM_COOKIE_CHARACTERS, CookieSealer
from gateway.auth.principal import Principal

COOKIE = "__Host-keyferry"
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in person. `csrf_token` is what our own pages prove themselves with; `expires` is in Unix seconds."""

    session_id: str
    principal: Principal
    csrf_token: str
    expires: float

    @property
    def email(self) -> str:
        """Return the person's e-mail address; may be empty."""
        return self.principal.email

    @property
    def name(self) -> str:
        """Return what to call the person."""
        return self.principal.name or self.principal.subject


class Sessions:
    """Begins, reads and ends sessions.

    The list of ended ones is in memory: it holds for one replica, and only for as long as the cookie would have lived.
    """

    def __init__(self, keyring: Keyring, *, lifetime_seconds: int, clock: Clock) -> None:
        self._sealer = CookieSealer(keyring, purpose="session")
        self._clock = clock
        self._ended: dict[str, float] = {}
        self.lifetime_seconds = lifetime_seconds

    def begin(self, principal: Principal) -> tuple[Session, str]:
        """Return a new session and its cookie's value."""
        session = Session(
            session_id=secrets.token_urlsafe(_TOKEN_BYTES),
            principal=principal,
            csrf_token=secrets.token_urlsafe(_TOKEN_BYTES),
            expires=self._now() + self.lifetime_seconds,
        )
        value = self._sealer.seal(_claims(session, principal.roles))
        if len(value) > MAXIMUM_COOKIE_CHARACTERS:
            # Somebody with hundreds of roles: ours are the ones that matter.
            ours = tuple(role for role in principal.roles if role.startswith("keyferry-"))
            value = self._sealer.seal(_claims(session, ours))
        return session, value

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None when there is none, or it is not ours, expired or logged out."""
        claims = self._sealer.open(cookie) if cookie else None
        if claims is None:
            return None
        session_id, csrf_token, expires = claims.get("sid"), claims.get("csrf"), claims.get("exp")
        if not isinstance(session_id, str) or not isinstance(csrf_token, str) or not isinstance(expires, (int, float)):
            return None
        if expires <= self._now() or session_id in self._ended:
            return None
        return Session(session_id, Principal.from_claims(claims), csrf_token, float(expires))

    def end(self, session: Session) -> None:
        """Refuse this session from now on, wherever its cookie was copied to."""
        now = self._now()
        self._ended = {session_id: expires for session_id, expires in self._ended.items() if expires > now}
        self._ended[session.session_id] = session.expires

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _claims(session: Session, roles: tuple[str, ...]) -> Mapping[str, object]:
    principal = session.principal
    return {
        "sid": session.session_id,
        "csrf": session.csrf_token,
        "exp": session.expires,
        "sub": principal.subject,
        "email": principal.email,
        "name": principal.name,
        "roles": list(roles),
        "locale": principal.locale,
    }
