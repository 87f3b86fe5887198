"""Pages of a long list, by number: links keep the filters of the address."""

from dataclasses import dataclass
from typing import TypeVar

from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True)
class Pager:
    first: int
    last: int
    total: int
    previous_url: str
    next_url: str


def paginate(request: HttpRequest, rows: QuerySet[Row], *, size: int) -> tuple[list[Row], Pager]:
    """The rows of the page that `?page=` names (a wrong number is the nearest right one)."""
    found = Paginator(rows, size).get_page(request.GET.get("page"))
    pager = Pager(
        first=found.start_index(),
        last=found.end_index(),
        total=found.paginator.count,
        previous_url=_url(request, found.previous_page_number()) if found.has_previous() else "",
        next_url=_url(request, found.next_page_number()) if found.has_next() else "",
    )
    return list(found), pager


def _url(request: HttpRequest, number: int) -> str:
    query = request.GET.copy()
    query["page"] = str(number)
    return f"{request.path}?{query.urlencode()}"
