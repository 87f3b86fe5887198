"""Template tags of the design system. `docs` of each say which CSS file draws it."""

import functools
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.forms import BoundField
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from controlplane.dashboard import formats, statuses

register = template.Library()
register.filter("usd", formats.usd)
register.filter("count", formats.count)
register.filter("compact", formats.compact)
register.filter("ms", formats.milliseconds)
register.filter("span", formats.span)

SPRITE = Path(__file__).parents[2] / "static/vendor/lucide/sprite.svg"


@functools.cache
def _sprite() -> str:
    return SPRITE.read_text(encoding="utf-8")


@register.simple_tag
def icon_sprite() -> SafeString:
    """The icons, once a page; `icon` refers to them."""
    return mark_safe(_sprite())  # noqa: S308 -- a vendored file, checked by its hash


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """An icon that says nothing by itself: the word stands beside it."""
    return format_html(
        '<svg class="icon{}" aria-hidden="true"><use href="#i-{}"/></svg>',
        f" {css}" if css else "",
        name,
    )


@register.simple_tag
def status(family: str, value: str) -> SafeString:
    """A state as icon, word and tone (badge.css)."""
    known = statuses.status(family, value)
    return badge(known.label, known.tone, known.icon)


@register.simple_tag
def badge(label: str, tone: str = "idle", symbol: str = "") -> SafeString:
    picture = icon(symbol) if symbol else ""
    return format_html('<span class="badge badge-{}">{}{}</span>', tone, picture, label)


@register.simple_tag
def money(nanos: int | None) -> SafeString | str:
    """Dollars as a person reads them; every digit on hovering and for machines."""
    if nanos is None:
        return "—"
    return _data(formats.exact_usd(nanos), formats.usd(nanos))


@register.simple_tag
def amount(value: int | None, unit: str) -> SafeString | str:
    """An amount in the unit of its budget."""
    if value is None:
        return "—"
    return _data(formats.exact_amount(value, unit), formats.amount(value, unit))


@register.simple_tag
def rest(limit: int, used: int, unit: str) -> SafeString | str:
    """What a limit leaves, never below nothing."""
    return amount(max(0, limit - used), unit)


def _data(exact: str, shown: str) -> SafeString:
    if exact == shown:
        return format_html('<data class="num" value="{}">{}</data>', exact, shown)
    return format_html('<data class="num" value="{0}" title="{0}">{1}</data>', exact, shown)


@register.simple_tag
def share(part: int, whole: int) -> str:
    return formats.percent(part, whole)


@register.simple_tag(takes_context=True)
def ago(context: Mapping[str, Any], then: datetime | None) -> SafeString | str:
    """How long ago; the full instant in the organization's time zone on hovering."""
    if then is None:
        return "never"
    now = context.get("now") or timezone.now()
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        then.isoformat(),
        _full(context, then),
        formats.since(then, now=now),
    )


@register.simple_tag(takes_context=True)
def instant(context: Mapping[str, Any], then: datetime | None, style: str = "full") -> SafeString:
    """An instant in the organization's time zone: `full`, `day` or `clock`."""
    if then is None:
        return mark_safe("—")
    shown = _full(context, then)
    local = then.astimezone(_zone(context))
    if style == "day":
        text = f"{local:%-d %b %Y}"
    elif style == "clock":
        text = f"{local:%H:%M:%S}"
    else:
        text = f"{local:%-d %b %Y, %H:%M}"
    return format_html('<time datetime="{}" title="{}">{}</time>', then.isoformat(), shown, text)


def _zone(context: Mapping[str, Any]) -> ZoneInfo:
    organization = context.get("organization")
    return ZoneInfo(organization.time_zone if organization else "UTC")


def _full(context: Mapping[str, Any], then: datetime) -> str:
    return f"{then.astimezone(_zone(context)):%Y-%m-%d %H:%M:%S %Z}"


@register.simple_tag
def meter(exposure: Any, size: str = "") -> SafeString:
    """A stacked bar of spent, held, suspense and overrun within the limit (meter.css).

    Widths are attributes of SVG, since the content security policy forbids inline styles.
    """
    parts = [
        ("spent", exposure.spent),
        ("held", exposure.held),
        ("suspense", exposure.suspense),
        ("overrun", exposure.overrun),
    ]
    whole = max(exposure.limit, sum(part for _, part in parts), 1)
    bars, start = [], 0
    for name, part in parts:
        width = formats.permille(part, whole)
        if part > 0:
            bars.append((name, _tenths(start), _tenths(max(width, 6))))
        start += width
    words = ", ".join(
        f"{name} {formats.amount(part, exposure.unit)}" for name, part in parts if part > 0
    )
    return format_html(
        '<svg class="meter{}{}" role="img" aria-label="{} of {}">'
        '<rect class="meter-track" width="100%" height="100%"/>{}</svg>',
        f" meter-{size}" if size else "",
        f" meter-{exposure.level}",
        words or "nothing spent",
        formats.amount(exposure.limit, exposure.unit),
        format_html_join("", '<rect class="meter-{}" x="{}%" width="{}%" height="100%"/>', bars),
    )


def _tenths(permille: int) -> str:
    return f"{permille // 10}.{permille % 10}"


@register.inclusion_tag("ui/_field.html")
def field(bound: BoundField, css: str = "") -> dict[str, Any]:
    """A form field with its label, help and errors (form.css)."""
    return {"field": bound, "css": css, "kind": bound.widget_type}


@register.inclusion_tag("ui/_empty.html")
def empty(symbol: str, title: str, text: str, url: str = "", action: str = "") -> dict[str, str]:
    """What to do when there is nothing yet (empty.css)."""
    return {"symbol": symbol, "title": title, "text": text, "url": url, "action": action}


@register.filter
def short(value: object) -> str:
    """The end of an id, enough to tell two apart: UUIDv7 begin with their time."""
    return str(value)[-8:]


@register.filter
def hue(value: str) -> str:
    """One of eight tints for an agent's or person's mark, always the same for the same name."""
    return str(hashlib.sha256(value.encode()).digest()[0] % 8)


@register.filter
def halves(value: str) -> tuple[str, str]:
    """`Hard: hold before each call` as a title and what it means."""
    title, _, note = str(value).partition(": ")
    return title, note[:1].upper() + note[1:]


@register.filter
def initials(value: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in value).split()
    return "".join(word[0] for word in words[:2]).upper() or "?"
