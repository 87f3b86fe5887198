"""Dead letters: tasks that failed for good, kept until somebody sends them again or dismisses them.

1. A task that fails again with the same arguments is the same letter while nobody has settled it.
2. A duty that succeeds in a later turn settles its own letter: nothing is left to do.
3. Batches that a duty sends out share one letter, which is settled once they have been quiet: the
   next tick does again what one of them missed.
4. Letters belong to the installation. Who settles one is written to the trail of their own
   organization, and told to no other.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from controlplane.audit.domain import Actor, record
from controlplane.duties.domain.parcels import BATCHES, EMPTY, Parcel
from controlplane.duties.enums import LetterState
from controlplane.duties.errors import (
    LetterIncompleteError,
    LetterNotFoundError,
    LetterSettledError,
    ReasonMissingError,
)
from controlplane.duties.models import DeadLetter, Duty

MOST_DEAD = 1_000  # beyond, new ones are only logged: who fills the broker must not fill the disk
SETTLED_KEPT = timedelta(days=30)
QUIET = timedelta(minutes=5)
Send = Callable[[str, Mapping[str, object]], None]


def bury(task: str, parcel: Parcel, *, error: str, attempts: int, now: datetime) -> bool:
    """Keep what failed for good. Whether there was room for it."""
    task = task.replace("\x00", "\ufffd")[:64] or "?"
    known = DeadLetter.objects.filter(task=task, digest=parcel.digest, state=LetterState.DEAD)
    change = {"attempts": F("attempts") + attempts, "error": error, "last_at": now}
    if known.update(**change):
        return True
    if DeadLetter.objects.filter(state=LetterState.DEAD)[:MOST_DEAD].count() >= MOST_DEAD:
        return False
    try:
        with transaction.atomic():
            DeadLetter.objects.create(
                task=task,
                digest=parcel.digest,
                arguments=parcel.arguments,
                whole=parcel.whole,
                error=error,
                attempts=attempts,
                first_at=now,
                last_at=now,
            )
    except IntegrityError:  # somebody was faster
        known.update(**change)
    return True


def recover(duty: str, *, now: datetime) -> None:
    """The duty has succeeded: its letter, if there is one, needs nobody."""
    _recover(DeadLetter.objects.filter(task=duty, digest=EMPTY.digest), now)


def recover_batches(task: str, *, now: datetime) -> None:
    """A batch has succeeded. Its letter needs nobody if none of the others failed for a while."""
    of_all = DeadLetter.objects.filter(task=task, digest=BATCHES.digest)
    _recover(of_all.filter(last_at__lt=now - QUIET), now)


def _recover(letters: QuerySet[DeadLetter], now: datetime) -> None:
    dead = letters.filter(state=LetterState.DEAD)
    dead.update(state=LetterState.RECOVERED, settled_at=now)


def retry_letter(
    letter_id: UUID,
    *,
    organization_id: UUID,
    actor: Actor,
    reason: str,
    now: datetime,
    send: Send,
) -> DeadLetter:
    """Do it again: a duty is due at once, any other task is sent with its arguments.

    Raises:
        LetterNotFoundError, LetterSettledError, ReasonMissingError; LetterIncompleteError: its
        arguments are not all there; and what `send` raises, after which nothing has changed.
    """
    _check(reason)
    with transaction.atomic():
        letter = _dead(letter_id)
        if not letter.whole:
            raise LetterIncompleteError("its arguments were not kept: it can only be dismissed")
        _settle(letter, LetterState.RETRIED, now)
        _write_down(letter, organization_id, actor, reason, now)
        due = Duty.objects.filter(pk=letter.task)
        if not due.update(due_at=now, sent_at=None, attempts=0):
            send(letter.task, letter.arguments)
    return letter


def dismiss_letter(
    letter_id: UUID, *, organization_id: UUID, actor: Actor, reason: str, now: datetime
) -> DeadLetter:
    """Let it be. Raises LetterNotFoundError, LetterSettledError, ReasonMissingError."""
    _check(reason)
    with transaction.atomic():
        letter = _dead(letter_id)
        _settle(letter, LetterState.DISMISSED, now)
        _write_down(letter, organization_id, actor, reason, now)
    return letter


def forget_letters(*, now: datetime) -> int:
    """Delete letters that were settled long ago. How many."""
    old = DeadLetter.objects.filter(settled_at__lt=now - SETTLED_KEPT)
    return old.delete()[0]


def _check(reason: str) -> None:
    if not reason.strip():
        raise ReasonMissingError("say why: it is written to the audit trail")


def _dead(letter_id: UUID) -> DeadLetter:
    letter = DeadLetter.objects.select_for_update().filter(pk=letter_id).first()
    if letter is None:
        raise LetterNotFoundError("no such dead letter")
    if letter.state != LetterState.DEAD:
        raise LetterSettledError(f"it {LetterState(letter.state).label}")
    return letter


def _settle(letter: DeadLetter, state: LetterState, now: datetime) -> None:
    letter.state, letter.settled_at = state, now
    letter.save(update_fields=["state", "settled_at"])


def _write_down(
    letter: DeadLetter, organization_id: UUID, actor: Actor, reason: str, now: datetime
) -> None:
    record(
        organization_id=organization_id,
        actor=actor,
        action=f"letter.{letter.state}",
        object_kind="dead letter",
        object_id=letter.pk,
        reason=reason,
        before={"state": LetterState.DEAD.value},
        after={"state": letter.state, "task": letter.task, "attempts": letter.attempts},
        now=now,
    )
