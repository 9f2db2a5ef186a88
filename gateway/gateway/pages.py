"""Renders the HTML pages. Everything is escaped; no page carries a script or style of its own."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from urllib.parse import quote

from babel.dates import format_datetime
from babel.numbers import format_currency, get_currency_precision
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from gateway.assets import Assets
from gateway.auth.session import Session
from gateway.domain.order import Amount

_FOLDER = Path(__file__).parent / "templates"
_LOCALE = "en"


class Pages:
    """The templates with their helpers."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            static=assets.url, money=format_money, time=format_time, segment=partial(quote, safe="")
        )

    def page(
        self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **context: object
    ) -> HTMLResponse:
        """Render a page. It may show an order or a key, so nothing on the way may keep it."""
        context.setdefault("session", None)
        html = self._environment.get_template(template).render(context)
        return HTMLResponse(html, status, {"cache-control": "no-store", **(headers or {})})

    def notice(
        self,
        *,
        title: str,
        sentence: str,
        action_url: str = "",
        action: str = "",
        form_url: str = "",
        reason: str = "",
        request_id: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        session: Session | None = None,
    ) -> HTMLResponse:
        """Render a page that says one thing and offers one way on: a link, or a form that posts."""
        return self.page(
            "notice.html",
            status=status,
            headers=headers,
            title=title,
            sentence=sentence,
            action_url=action_url,
            action=action,
            form_url=form_url,
            reason=reason,
            request_id=request_id,
            session=session,
        )


def format_money(amount: Amount) -> str:
    """Return an amount as people write it."""
    precision = get_currency_precision(amount.currency_code)
    return format_currency(Decimal(amount.minor_units).scaleb(-precision), amount.currency_code, locale=_LOCALE)


def format_time(moment: datetime) -> Markup:
    """Return a `time` element in UTC; the page's script rewrites it in the reader's own zone."""
    told = format_datetime(moment.astimezone(UTC), "d MMM y, HH:mm", locale=_LOCALE)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.astimezone(UTC).isoformat(timespec="seconds"), told
    )
