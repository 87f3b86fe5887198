"""`/comptroller/v1/delegations`: an agent gives part of its session's budget to a child session.

The sidecar says it to the control plane under the caller's own attribution, and passes the answer
on. Nothing is kept here: the token that comes back says all that calls of the child need.
"""

import asyncio
from typing import Any

import msgspec
from msgspec import Struct, field

from enforcement.rules.requests import Body
from enforcement.rules.verdicts import UNAVAILABLE, Refuse
from enforcement.rules.wire import Attribution, Delegate, Delegated, EndDelegation
from enforcement.sidecar import clock
from enforcement.sidecar.admission import RefusedError, identify, tree_caller_of
from enforcement.sidecar.answers import invalid, send_refusal
from enforcement.sidecar.controlclient import AnswerError, ControlError
from enforcement.sidecar.desk import Desk
from enforcement.sidecar.front import ClientConnection
from enforcement.sidecar.http1 import RequestHead

PATH = b"/comptroller/v1/delegations"
END_PATH = PATH + b"/end"
_encode = msgspec.json.Encoder().encode


class NewDelegation(Struct, frozen=True, forbid_unknown_fields=True):
    """What an agent asks for. `amounts`: by budget, id or name; or a `percent` of what is free."""

    child_session: str
    child_agent: str = ""
    amounts: dict[str, str | int] = field(default_factory=dict)
    percent: int = 0
    expires_in_s: int = 3_600


class Ending(Struct, frozen=True, forbid_unknown_fields=True):
    """Which delegation ends."""

    delegation: str


class Delegating:
    """One request on its way to the control plane and back."""

    __slots__ = ("_client", "_desk", "_id", "_task")

    def __init__(self, desk: Desk, client: ClientConnection, *, request_id: str) -> None:
        self._desk = desk
        self._client = client
        self._id = request_id
        self._task: asyncio.Task[None] | None = None

    def start(self, head: RequestHead, body: Body) -> None:
        """Ask. Raises RefusedError: the request is none."""
        message, path, kind = self._message(head, body)
        self._client.running = self
        self._task = asyncio.get_running_loop().create_task(self._ask(path, message, kind))

    def _message(
        self, head: RequestHead, body: Body
    ) -> tuple[Delegate | EndDelegation, str, type[Any]]:
        view = self._desk.view
        if view is None:
            raise RefusedError(_away("The control plane has not been heard of yet"))
        agent = identify(view, head.headers, now_ms=clock.now_ms())
        caller = tree_caller_of(view, agent, head.headers)
        facts = Attribution(
            agent=agent.policy.id, session=caller.session, delegation=caller.delegation
        )
        header = self._desk.book.make_header()
        try:
            if head.path == END_PATH:
                ending = msgspec.json.decode(body, type=Ending)
                return EndDelegation(header, facts, ending.delegation), "undelegate", EndDelegation
            wish = msgspec.json.decode(body, type=NewDelegation)
        except msgspec.MsgspecError as error:
            raise RefusedError(invalid(str(error), code="invalid_json")) from error
        message = Delegate(
            header,
            facts,
            wish.child_session,
            child_agent=wish.child_agent,
            amounts=wish.amounts,
            percent=wish.percent,
            expires_in_s=wish.expires_in_s,
        )
        return message, "delegate", Delegated

    async def _ask(self, path: str, message: Delegate | EndDelegation, kind: type[Any]) -> None:
        try:
            answer = await self._desk.post(path, msgspec.json.encode(message))
            told = msgspec.to_builtins(msgspec.json.decode(answer, type=kind))
        except AnswerError as error:
            self._refuse(_passed_on(error))
        except (ControlError, msgspec.MsgspecError):
            self._refuse(_away("The control plane does not answer"))
        else:
            self._client.running = None
            told.pop("header", None)
            told.pop("attribution", None)
            self._client.respond(200, bytes(_encode(told)))

    def _refuse(self, refusal: Refuse) -> None:
        self._client.running = None
        send_refusal(self._client, refusal, request_id=self._id)

    # ------------------------------------------------------------------ Running

    def client_gone(self) -> None:
        """What was asked is asked; nobody hears the answer."""
        if self._task is not None:
            self._task.cancel()

    def client_paused(self) -> None:
        """There is nothing to pause."""

    def client_resumed(self) -> None:
        """There is nothing to resume."""


def _passed_on(error: AnswerError) -> Refuse:
    if error.status in (404, 409, 422):
        status = 400 if error.status == 422 else error.status
        return invalid(error.detail, status=status, code="delegation_refused")
    return _away("The control plane failed")


def _away(message: str) -> Refuse:
    return Refuse(
        status=503,
        type=UNAVAILABLE,
        code=UNAVAILABLE,
        reason="control_plane_away",
        message=message,
        retry_after_s=2,
    )
