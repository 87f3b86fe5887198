"""`GET /api/v1/usage/query` and `export`: use of whole days, by dimensions and as FOCUS rows."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from budgets.api.serializers import UsageGroupSerializer, UsageSumSerializer
from budgets.enums import choices_of
from budgets.errors import UsageQueryError
from budgets.queries.explore import (
    MOST_FILTERS,
    MOST_GROUPS,
    Answer,
    ask,
    check_days,
    grouping_of,
)
from budgets.queries.exploresql import Question
from budgets.queries.focus import COLUMNS, Version, hours_of
from budgets.queries.focusfiles import MEDIA_TYPES, Output, written
from budgets.queries.owners import names_of, value_meant
from controlplane.api import StrictSerializer, caller_of
from controlplane.identity.models import Organization
from enforcement.rules.windows import EPOCH

DEFAULT_DAYS = 30
PATIENCE_S = 60  # for a piece of an export, half a megabyte


class QuestionSerializer(StrictSerializer):
    """What to ask: whole UTC days `[since, until)`, by default the last 30 with today."""

    since = serializers.DateField(required=False)
    until = serializers.DateField(required=False)
    group_by = serializers.CharField(
        default="model",
        allow_blank=True,
        max_length=500,
        help_text="at most two, with commas: team, project, agent, user, model, provider, node,"
        " skill, endpoint, tier, ending, tag:NAME, session, and one of hour, day, week",
    )
    filter = serializers.ListField(
        child=serializers.CharField(max_length=1_300),
        required=False,
        max_length=MOST_FILTERS,
        help_text="NAME=VALUE, repeatable; owners by id or slug",
    )
    limit = serializers.IntegerField(min_value=1, max_value=MOST_GROUPS, default=100)


class UsageAnswerSerializer(serializers.Serializer[Any]):
    """The dearest groups (with time: in its order), and the total of all of them."""

    since = serializers.DateField()
    until = serializers.DateField()
    group_by = serializers.ListField(child=serializers.CharField())
    total = UsageSumSerializer()
    groups = UsageGroupSerializer(many=True)
    found = serializers.IntegerField(help_text="groups, also those beyond the limit")
    answered_by = serializers.ChoiceField(
        choices=["rollups", "events"], help_text="what answered; events are slower"
    )
    folded_at = serializers.DateTimeField(
        allow_null=True, help_text="rollups hold what was booked until then"
    )


def days_asked(since: date | None, until: date | None, *, now: datetime) -> tuple[date, date]:
    """The days that are meant; without any, the last 30 with today.

    Raises:
        UsageQueryError: they end before computers began to count.
    """
    end = until or now.date() + timedelta(days=1)
    if end <= EPOCH.date():
        raise UsageQueryError("until", "must be after 1970")
    return since or end - timedelta(days=DEFAULT_DAYS), end


def question_of(
    organization_id: UUID, values: dict[str, Any], *, words: Iterable[str], now: datetime
) -> Question:
    """A question out of parsed parameters and filters as `NAME=VALUE`.

    Raises:
        UsageQueryError: a grouping or filter that does not exist.
    """
    filters = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageQueryError("filter", f"{word!r}: write NAME=VALUE")
        if grouping_of(name) in filters:
            raise UsageQueryError("filter", f"{name} twice")
        filters[grouping_of(name)] = value_meant(organization_id, name, value)
    since, until = days_asked(values.get("since"), values.get("until"), now=now)
    names = filter(None, (name.strip() for name in values["group_by"].split(",")))
    return Question(
        organization_id=organization_id,
        since=since,
        until=until,
        by=tuple(grouping_of(name) for name in names),
        filters=filters,
        most=values["limit"],
    )


def told(question: Question, answer: Answer) -> dict[str, Any]:
    """An answer as the API writes it."""
    by = [one.name for one in question.by]
    names = names_of(question.organization_id, by)
    groups = []
    for group in answer.groups:
        key = dict(zip(by, group.key, strict=True))
        named = {kind: known[str(key[kind])] for kind, known in names.items() if key[kind] in known}
        groups.append({**vars(group), "key": key, "names": named})
    body = {
        "since": question.since,
        "until": question.until,
        "group_by": by,
        "total": answer.total,
        "groups": groups,
        "found": answer.found,
        "answered_by": "events" if answer.from_events else "rollups",
        "folded_at": answer.folded_at,
    }
    return dict(UsageAnswerSerializer(body).data)


class UsageQueryView(GenericAPIView[Any]):
    """Use of whole days by any two dimensions."""

    serializer_class = UsageAnswerSerializer

    @extend_schema(
        operation_id="usage_query",
        parameters=[QuestionSerializer],
        responses=UsageAnswerSerializer,
    )
    def get(self, request: Request) -> Response:
        """Use by up to two dimensions, or one and time, with filters.

        Up to two dimensions among groupings and filters are answered from rollups, at once; more,
        two tags or sessions from the events.
        """
        given = QuestionSerializer(
            data=request.query_params.dict() | {"filter": request.query_params.getlist("filter")}
        )
        given.is_valid(raise_exception=True)
        question = question_of(
            caller_of(request).organization_id,
            given.validated_data,
            words=given.validated_data.get("filter", ()),
            now=timezone.now(),
        )
        return Response(told(question, ask(question)))


class ExportSerializer(StrictSerializer):
    """What to export: whole UTC days `[since, until)`, by default the last 30 with today."""

    since = serializers.DateField(required=False)
    until = serializers.DateField(required=False)
    spec = serializers.ChoiceField(choices=choices_of(Version), default=Version.FOCUS_1_4.value)
    output = serializers.ChoiceField(choices=choices_of(Output), default=Output.CSV.value)


class UsageExportView(GenericAPIView[Any]):
    """Charges of whole days as FOCUS cost and usage rows."""

    serializer_class = ExportSerializer

    @extend_schema(
        operation_id="usage_export",
        parameters=[ExportSerializer],
        responses={(200, kind): OpenApiTypes.BINARY for kind in MEDIA_TYPES.values()},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """One row for each hour, agent, model, price version, node, tier and skill; as a stream."""
        given = ExportSerializer(data=request.query_params.dict())
        given.is_valid(raise_exception=True)
        values = given.validated_data
        since, until = days_asked(values.get("since"), values.get("until"), now=timezone.now())
        version, output = Version(values["spec"]), Output(values["output"])
        organization = Organization.objects.get(pk=caller_of(request).organization_id)
        check_days(since, until)
        pieces = written(COLUMNS[version], hours_of(organization, since, until, version), output)
        name = f"{version}-{since}-{until}.{output}"
        return StreamingHttpResponse(
            _apart(pieces) if isinstance(request._request, ASGIRequest) else pieces,  # noqa: SLF001 -- DRF has no other way to it
            content_type=MEDIA_TYPES[output],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


async def _apart(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces made one by one in the thread of the database: ASGI would gather them all first.

    A stream holds a thread for as long as it lasts, so who does not take a piece is cut off.
    """
    loop, stream = asyncio.get_running_loop(), asyncio.current_task()
    while stream and (piece := await sync_to_async(_next)(pieces)) is not None:
        patience = loop.call_later(PATIENCE_S, stream.cancel)
        try:
            yield piece
        finally:
            patience.cancel()


def _next(pieces: Iterator[bytes]) -> bytes | None:
    try:
        return next(pieces, None)
    finally:
        close_old_connections()  # others need it while this one is read
