"""Receivers of usage that no sidecar saw: OpenTelemetry spans, LiteLLM's logs, webhooks.

They read a body within bounds, ask a rule what it says, and hand the calls to one domain function.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, TypeVar

import msgspec
from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from budgets.domain.rejected import Rejected
from controlplane.api import caller_of
from controlplane.identity.enums import Scope
from enforcement.domain.receiving import Received, receive_calls
from enforcement.errors import ReportFormatError, ReportTooLargeError, UnreadableReportError
from enforcement.receivers import metrics
from enforcement.receivers.bodies import (
    MAX_BODY_BYTES,
    MAX_CALLS,
    MAX_JSON_BYTES,
    MAX_PROTOBUF_BYTES,
    check_values,
    otlp_answer,
    spans_of_protobuf,
    unpacked,
)
from enforcement.receivers.limits import ReportRate
from enforcement.rules.reports import genai, litellm
from enforcement.rules.reports.call import ReportedCall, ReportError, Source
from enforcement.rules.reports.spans import Span, spans_of_json
from enforcement.rules.reports.webhook import FIELDS, ITEMS, Mapped

PROTOBUF, JSON = "application/x-protobuf", "application/json"
JSON_LINES = "application/x-ndjson"
T = TypeVar("T")

_rate = ReportRate()


class BytesParser(BaseParser):
    """Whatever comes, as bytes, up to one more than is taken."""

    media_type = "*/*"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,  # noqa: ARG002 -- DRF's signature
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        return stream.read(MAX_BODY_BYTES + 1)


class ReceivedSerializer(serializers.Serializer[Any]):
    """What became of the calls of a body; `no_usage` told of no tokens."""

    booked = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    metered = serializers.IntegerField(help_text="by a sidecar, or told by another source")
    unattributed = serializers.IntegerField(help_text="of the booked: by no known agent")
    contradictions = serializers.IntegerField(
        help_text="of the rejected: told before with other content"
    )
    no_usage = serializers.IntegerField()
    rejected = serializers.ListField(
        child=serializers.CharField(), help_text="why, for each that was set aside"
    )


class _Receiver(APIView):
    """A body comes in, calls go out."""

    parser_classes = (BytesParser,)
    write_scope = Scope.USAGE_WRITE.value
    source: Source
    media_types: tuple[str, ...] = (JSON,)

    def body(self, request: Request) -> tuple[str, bytes]:
        """The media type and the unpacked body, once the caller's rate allows it."""
        _rate.spend(caller_of(request).organization_id, per_minute=settings.REPORTS_PER_MINUTE)
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        if kind not in self.media_types:
            raise ReportFormatError(f"Content-Type: {' or '.join(self.media_types)}")
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        given: Any = request.data  # by `BytesParser`; DRF has a form of its own for no body at all
        packed = given if isinstance(given, bytes) else b""
        if kind == PROTOBUF:
            return kind, unpacked(packed, encoding=encoding, most=MAX_PROTOBUF_BYTES)
        body = unpacked(packed, encoding=encoding, most=MAX_JSON_BYTES)
        check_values(body)
        return kind, body

    def book(
        self,
        request: Request,
        documents: list[T],
        *,
        read: Callable[[T], ReportedCall | None],
    ) -> tuple[Received, int]:
        """What became of the documents, and how many of them told of no usage."""
        if len(documents) > MAX_CALLS:
            raise ReportTooLargeError(f"at most {MAX_CALLS:,} at once")
        calls, rejected = _read(documents, read)
        received = receive_calls(
            organization_id=caller_of(request).organization_id,
            source=self.source,
            calls=calls,
            rejected=rejected,
            now=timezone.now(),
        )
        empty = len(documents) - len(calls) - len(rejected)
        metrics.count(self.source, received, empty=empty)
        return received, empty

    def answer(self, received: Received, *, empty: int) -> Response:
        return Response({**received._asdict(), "no_usage": empty})


class OtlpTracesView(_Receiver):
    """OTLP over HTTP: `POST /v1/traces`, where exporters expect it. Not part of the REST API."""

    source = Source.OTLP
    media_types = (PROTOBUF, JSON)

    @extend_schema(exclude=True)
    def post(self, request: Request) -> HttpResponse:
        """Book the model calls among the spans; all others are none of our business."""
        kind, body = self.body(request)
        try:
            spans = _SPANS[kind](body)
        except ReportError as error:
            raise UnreadableReportError(str(error)) from error
        received, _ = self.book(request, spans, read=genai.call_of)
        count = len(received.rejected)
        message = f"set aside: {received.rejected[0]}" if count else ""
        if kind == PROTOBUF:
            return HttpResponse(otlp_answer(count, message), content_type=PROTOBUF)
        partial = {"rejectedSpans": str(count), "errorMessage": message}
        return Response({"partialSuccess": partial} if count else {})


class LiteLLMView(_Receiver):
    """LiteLLM's generic API callback."""

    source = Source.LITELLM
    media_types = (JSON, JSON_LINES)

    @extend_schema(
        operation_id="usage_litellm",
        request={JSON: {"type": "object", "additionalProperties": True}},
        responses=ReceivedSerializer,
    )
    def post(self, request: Request) -> Response:
        """Book the calls of one `StandardLoggingPayload`, a list of them, or one a line."""
        _, body = self.body(request)
        try:
            documents = litellm.documents_of(body)
        except ReportError as error:
            raise UnreadableReportError(str(error)) from error
        received, empty = self.book(
            request, documents, read=lambda raw: litellm.call_of(bytes(raw))
        )
        return self.answer(received, empty=empty)


class WebhookView(_Receiver):
    """JSON of any shape, by a mapping in the address."""

    source = Source.WEBHOOK

    @extend_schema(
        operation_id="usage_webhook",
        parameters=[
            OpenApiParameter(name, description="where it stands: a JSON pointer (RFC 6901)")
            for name in (ITEMS, *FIELDS)
        ],
        request={JSON: {"type": "object", "additionalProperties": True}},
        responses=ReceivedSerializer,
    )
    def post(self, request: Request) -> Response:
        """Book the calls of a JSON document, or of a list of them."""
        _, body = self.body(request)
        try:
            mapped = Mapped(_pointers(request))
            documents = mapped.documents(body)
        except ReportError as error:
            raise UnreadableReportError(str(error)) from error
        received, empty = self.book(request, documents, read=mapped.call)
        return self.answer(received, empty=empty)


_SPANS: Mapping[str, Callable[[bytes], list[Span]]] = {
    PROTOBUF: lambda body: spans_of_protobuf(body, wanted=genai.wanted),
    JSON: lambda body: spans_of_json(body, wanted=genai.wanted),
}


def _pointers(request: Request) -> dict[str, str]:
    """Raises ReportError: a field is given twice."""
    given = request.query_params
    twice = [name for name, values in given.lists() if len(values) > 1]
    if twice:
        raise ReportError(f"{twice[0][:100]!r} is given twice")
    return given.dict()


def _read(
    documents: Iterable[T], read: Callable[[T], ReportedCall | None]
) -> tuple[list[ReportedCall], list[Rejected]]:
    """The calls that can be true, and what else was said with what is wrong."""
    calls: list[ReportedCall] = []
    rejected: list[Rejected] = []
    for document in documents:
        try:
            call = read(document)
        except ReportError as error:
            rejected.append(Rejected(msgspec.json.encode(document), str(error)))
        else:
            if call is not None:
                calls.append(call)
    return calls, rejected
