"""Dead letters: what failed for good is kept once, says no secret, and is settled by somebody."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client

from controlplane.audit.models import AuditEntry
from controlplane.duties import failures
from controlplane.duties.domain import letters
from controlplane.duties.domain.letters import bury, dismiss_letter, forget_letters, retry_letter
from controlplane.duties.domain.parcels import EMPTY, KILLED, parcel_of, words_of
from controlplane.duties.domain.rules import MOST_ATTEMPTS
from controlplane.duties.domain.turns import take_turn
from controlplane.duties.enums import LetterState
from controlplane.duties.errors import (
    BrokerAwayError,
    LetterIncompleteError,
    LetterNotFoundError,
    LetterSettledError,
    ReasonMissingError,
)
from controlplane.duties.models import DeadLetter, Duty
from controlplane.identity.errors import SlugTakenError
from tests.controlplane.world import ACTOR, UNKNOWN, World

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
S = timedelta(seconds=1)
EVERY = 10 * S
CANARY = "sk-canary-0123456789"
ID = "01890000-0000-7000-8000-000000000001"


class Sent(list[tuple[str, Mapping[str, object]]]):
    def __call__(self, task: str, arguments: Mapping[str, object]) -> None:
        self.append((task, arguments))


def dead(task: str = "enforcement.scrape_nodes", **arguments: object) -> DeadLetter:
    bury(task, parcel_of((), arguments), error="ValueError", attempts=1, now=NOW)
    return DeadLetter.objects.get(task=task, state=LetterState.DEAD)


def who(world: World) -> dict[str, Any]:
    return {"organization_id": world.id, "actor": ACTOR, "reason": "why not", "now": NOW + S}


# ------------------------------------------------------------------------------- what is kept


def test_ids_and_numbers_are_kept_and_no_other_text() -> None:
    kept = parcel_of((), {"node_ids": [ID], "count": 3, "dry": True})
    assert (kept.arguments, kept.whole) == ({"node_ids": [ID], "count": 3, "dry": True}, True)
    secret = parcel_of((), {"prompt": CANARY, "more": {"deep": CANARY}, "node_ids": [ID, CANARY]})
    assert secret.arguments == {"prompt": "…", "more": "…", "node_ids": [ID, "…"]}
    assert not secret.whole
    assert not parcel_of((CANARY,), {}).whole


def test_arguments_are_bounded_however_many_there_are() -> None:
    huge = parcel_of((), {"node_ids": [ID] * 100_000})
    assert (huge.arguments, huge.whole) == ({"node_ids": "…"}, False)
    many = parcel_of((), {f"{number}" * 500: 1 for number in range(1_000)})
    assert len(str(many.arguments)) < 2_000
    assert huge.digest != many.digest


def test_an_error_tells_its_kind_and_place_but_not_its_words() -> None:
    with pytest.raises(ReasonMissingError) as raised:
        dismiss_letter(UNKNOWN, organization_id=UNKNOWN, actor=ACTOR, reason=" ", now=NOW)
    kind, place = words_of(raised.value).split(" at ")
    assert kind == "controlplane.duties.errors.ReasonMissingError"
    assert place.startswith("controlplane/duties/domain/letters.py:")
    assert words_of(ValueError(CANARY)) == "builtins.ValueError"
    assert words_of(SlugTakenError(CANARY)) == "controlplane.identity.errors.SlugTakenError"


@pytest.mark.django_db
def test_a_task_that_raises_leaves_a_letter_without_the_words_of_its_error() -> None:
    class Task:
        name = "budgets.fold_usage"

    for _ in range(3):
        failures.keep_failed(
            Task(), str(uuid4()), ValueError(CANARY), (), {"node_ids": [ID], "key": CANARY}
        )
    letter = DeadLetter.objects.get()
    assert (letter.task, letter.error, letter.attempts) == (Task.name, "builtins.ValueError", 3)
    assert CANARY not in str(DeadLetter.objects.values().get())


@pytest.mark.django_db
def test_batches_share_a_letter_that_goes_when_all_have_been_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Batch:
        name = "enforcement.scrape_nodes"

    for count in range(3):
        failures.keep_failed(
            Batch(), str(uuid4()), ValueError(CANARY), (), {"node_ids": [ID] * count}
        )
    failures.note_succeeded(Batch())  # another batch
    letter = DeadLetter.objects.get()
    assert (letter.state, letter.attempts, letter.whole) == (LetterState.DEAD, 3, False)
    monkeypatch.setattr(letters, "QUIET", timedelta(0))
    failures.note_succeeded(Batch())
    letter.refresh_from_db()
    assert letter.state == LetterState.RECOVERED


@pytest.mark.django_db
def test_a_message_of_nobodys_task_leaves_a_bounded_letter() -> None:
    failures.keep_unknown("x" * 10_000 + "\x00")
    failures.keep_unknown("\x00" + CANARY[:3])
    names = sorted(DeadLetter.objects.values_list("task", flat=True))
    assert names == ["x" * 64, "\ufffdsk-"]
    assert not DeadLetter.objects.filter(whole=True).exists()


@pytest.mark.django_db
def test_who_fills_the_broker_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "MOST_DEAD", 3)
    kept = [bury(f"t{n}", EMPTY, error="e", attempts=1, now=NOW) for n in range(5)]
    assert kept == [True, True, True, False, False]
    assert bury("t0", EMPTY, error="e", attempts=1, now=NOW)  # the same again needs no room


# ------------------------------------------------------------------------------- of duties


@pytest.fixture
def duty(db: None) -> Duty:
    return Duty.objects.create(name="sweep", due_at=NOW, attempts=MOST_ATTEMPTS - 1)


def fail(duty: Duty) -> None:
    with pytest.raises(ZeroDivisionError):
        take_turn("sweep", lambda: 1 // 0, every=EVERY, now=duty.due_at)
    duty.refresh_from_db()


def test_the_fifth_failure_leaves_a_letter_that_a_later_success_settles(duty: Duty) -> None:
    fail(duty)
    letter = DeadLetter.objects.get()
    assert (letter.task, letter.attempts, letter.whole) == ("sweep", 5, True)
    assert letter.error.startswith("builtins.ZeroDivisionError")
    take_turn("sweep", lambda: None, every=EVERY, now=duty.due_at)
    letter.refresh_from_db()
    assert letter.state == LetterState.RECOVERED


def test_a_turn_that_kills_its_workers_is_told_too(duty: Duty) -> None:
    Duty.objects.update(attempts=MOST_ATTEMPTS)
    take_turn("sweep", lambda: None, every=EVERY, now=NOW)
    assert DeadLetter.objects.get().error == KILLED


def test_to_retry_a_duty_makes_it_due_at_once(duty: Duty, world: World) -> None:
    fail(duty)
    sent = Sent()
    letter = retry_letter(DeadLetter.objects.get().pk, send=sent, **who(world))
    duty.refresh_from_db()
    assert (letter.state, sent) == (LetterState.RETRIED, [])
    assert (duty.due_at, duty.sent_at, duty.attempts) == (NOW + S, None, 0)


# ------------------------------------------------------------------------------- settling


def test_a_retry_sends_the_arguments_once_and_is_audited(world: World) -> None:
    letter, sent = dead(node_ids=[ID]), Sent()
    retry_letter(letter.pk, send=sent, **who(world))
    assert sent == [("enforcement.scrape_nodes", {"node_ids": [ID]})]
    with pytest.raises(LetterSettledError, match="it was sent again"):
        retry_letter(letter.pk, send=sent, **who(world))
    entry = AuditEntry.objects.get(object_id=str(letter.pk))
    assert (entry.action, entry.reason) == ("letter.retried", "why not")
    assert (len(sent), entry.organization_id) == (1, world.id)


def test_while_the_broker_is_away_nothing_changes(world: World) -> None:
    def away(_task: str, _arguments: Mapping[str, object]) -> None:
        raise BrokerAwayError

    letter = dead(node_ids=[ID])
    with pytest.raises(BrokerAwayError):
        retry_letter(letter.pk, send=away, **who(world))
    letter.refresh_from_db()
    assert (letter.state, AuditEntry.objects.filter(object_kind="dead letter").count()) == (
        LetterState.DEAD,
        0,
    )


def test_what_was_not_kept_whole_is_never_sent(world: World) -> None:
    letter, sent = dead(prompt=CANARY), Sent()
    with pytest.raises(LetterIncompleteError):
        retry_letter(letter.pk, send=sent, **who(world))
    assert dismiss_letter(letter.pk, **who(world)).state == LetterState.DISMISSED
    assert sent == []


def test_of_a_settled_letter_the_next_failure_is_a_new_one(world: World) -> None:
    dismiss_letter(dead().pk, **who(world))
    dead()
    assert sorted(DeadLetter.objects.values_list("state", flat=True)) == ["dead", "dismissed"]
    assert forget_letters(now=NOW + timedelta(days=31)) == 1
    assert DeadLetter.objects.get().state == LetterState.DEAD


def test_unknown_letters_are_unknown(world: World) -> None:
    with pytest.raises(LetterNotFoundError):
        dismiss_letter(uuid4(), **who(world))


@pytest.mark.parametrize(
    "change",
    [
        "state = 'alive'",
        "state = 'dismissed'",
        "settled_at = now()",
        "task = ''",
        "error = ''",
        "attempts = 0",
    ],
)
@pytest.mark.django_db
def test_the_database_refuses_what_cannot_be(change: str) -> None:
    dead()
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE duties_deadletter SET {change}")


# ------------------------------------------------------------------------------- API and page


def test_the_api_lists_for_members_and_settles_for_admins(world: World) -> None:
    letter = dead(node_ids=[ID])
    admin, viewer = world.clients["owner"], world.clients["viewer"]
    (told,) = viewer.call("GET", "dead-letters?state=dead").json()["results"]
    assert (told["id"], told["task"], told["state"]) == (str(letter.pk), letter.task, "dead")
    assert "arguments" not in told  # the nodes may be another organization's
    path = f"dead-letters/{letter.pk}/dismiss"
    assert viewer.call("POST", path, {"reason": "x"}).status_code == 403
    assert admin.call("POST", path, {}).status_code == 400
    assert admin.call("POST", path, {"reason": "x"}).json()["state"] == "dismissed"
    assert admin.call("POST", path, {"reason": "x"}).status_code == 409


def test_the_page_tells_and_settles(world: World, client: Client) -> None:
    client.force_login(world.people["owner"])
    assert "Nothing has failed" in client.get("/tasks/").content.decode()
    letter = dead(prompt=CANARY)
    text = client.get("/tasks/").content.decode()
    assert letter.task in text
    assert 'name="retry"' not in text
    done = client.post(f"/tasks/{letter.pk}/", {"dismiss": "", "reason": "old"}, follow=True)
    assert "was dismissed" in done.content.decode()
    assert client.post(f"/tasks/{UNKNOWN}/", {"dismiss": "", "reason": "old"}).status_code == 404
