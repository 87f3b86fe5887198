"""Groups that wait for their grant: in order of arrival, with recalls, never for ever (L8).

A group that does not fit waits while the short balances are recalled; a younger group may not take
what it waits for. A queue lives in one coordinator's memory between transactions: when it is lost,
books ask again under the same keys.
"""

import hashlib

import msgspec
from msgspec import Struct, field

from enforcement.rules.ledger import Ask, Balance, Lease, Ledger
from enforcement.rules.wire import Denial, DenialCause, Group, GroupItem

SHARERS_MS = 10_000  # a book counts as active on a balance for so long after its last grant
RECALL_EVERY_MS = 100
RECALLED_MS = 1_000
RETRY_HELD_MS = 1_000


class Answers(Struct):
    """What a pump decided: leases by group key, denials, and balances to recall."""

    granted: dict[str, list[Lease]] = field(default_factory=dict)
    denied: list[Denial] = field(default_factory=list)
    recalls: list[str] = field(default_factory=list)


class GrantQueue:
    """Groups in order of arrival. Kept between transactions; one for each coordinator."""

    def __init__(self) -> None:
        self.waiting: dict[str, Ask] = {}  # by group key
        self._seen: dict[str, dict[str, int]] = {}
        self._recalled: dict[str, int] = {}

    def submit(self, ask: Ask) -> None:
        """Queue a group, unless it is waiting already (a retry of the same key)."""
        self.waiting.setdefault(ask.group.key, ask)

    def balances(self) -> set[str]:
        """The balances that the next pump needs in its working set."""
        return {balance for ask in self.waiting.values() for balance, _ in ask.items}

    def is_recalled(self, balance: str, *, now_ms: int) -> bool:
        """Leases of a balance that is being recalled are not renewed (L3)."""
        return self._was_recalled(balance, RECALLED_MS, now_ms=now_ms)

    def _was_recalled(self, balance: str, within_ms: int, *, now_ms: int) -> bool:
        """Whether it was within this time; one of the future is from before a clock's step."""
        at_ms = self._recalled.get(balance)
        return at_ms is not None and 0 <= now_ms - at_ms < within_ms

    def pump(self, ledger: Ledger, *, now_ms: int) -> Answers:
        """Grant what fits, deny what has waited long enough, keep and recall for the rest."""
        answers = Answers()
        reserved: dict[str, int] = {}
        still_waiting = {}
        self._forget_idle(now_ms=now_ms)
        for ask in self.waiting.values():
            ask.arrived_ms = min(ask.arrived_ms, now_ms)  # a clock's step back prolongs no wait
            short = self._short(ask, ledger, reserved, now_ms=now_ms)
            if short is None:
                answers.granted[ask.group.key] = self._grant(ask, ledger, reserved, now_ms=now_ms)
            elif now_ms >= ask.deadline_ms or _hopeless(ask, ledger):
                balance, item = short
                answers.denied.append(deny(ask.group.key, ledger.balances[balance], item.floor))
            else:
                still_waiting[ask.group.key] = ask
                for balance, item in ask.items:
                    reserved[balance] = reserved.get(balance, 0) + item.floor
                    if not self._was_recalled(balance, RECALL_EVERY_MS, now_ms=now_ms):
                        self._recall_if_short(balance, item, ledger, answers, now_ms=now_ms)
        self.waiting = still_waiting
        return answers

    def _short(
        self, ask: Ask, ledger: Ledger, reserved: dict[str, int], *, now_ms: int
    ) -> tuple[str, GroupItem] | None:
        """The first balance that cannot give enough: the need, or later at least the floor."""
        patient = now_ms < ask.arrived_ms + ask.group.wait_ms // 2
        for balance_id, item in ask.items:
            balance = ledger.balances[balance_id]
            enough = max(1, item.need if patient else item.floor)
            if balance.closed or balance.free - reserved.get(balance_id, 0) < enough:
                return balance_id, item
            early = ask.group.ahead or ask.group.spare
            if early and (balance.tight or balance.lends):
                return balance_id, item  # what is scarce goes to those who need it now
        return None

    def _grant(
        self, ask: Ask, ledger: Ledger, reserved: dict[str, int], *, now_ms: int
    ) -> list[Lease]:
        for balance, _ in ask.items:
            self._seen.setdefault(balance, {})[ask.spool] = now_ms
        return ledger.grant(
            ask,
            sharers=lambda balance: len(self._seen[balance]),
            reserved=reserved,
            now_ms=now_ms,
        )

    def _forget_idle(self, *, now_ms: int) -> None:
        """Books that no longer share what is asked for; none of the future after a step back."""
        for balance in self.balances() & self._seen.keys():
            seen = self._seen[balance]
            for spool in [s for s, at_ms in seen.items() if not 0 <= now_ms - at_ms <= SHARERS_MS]:
                del seen[spool]

    def _recall_if_short(
        self, balance: str, item: GroupItem, ledger: Ledger, answers: Answers, *, now_ms: int
    ) -> None:
        if ledger.balances[balance].free < item.need and balance not in answers.recalls:
            self._recalled[balance] = now_ms
            answers.recalls.append(balance)


def content_of(group: Group) -> str:
    """What a key stands for (L10): a retry may be more patient, but asks for the same."""
    body = msgspec.json.encode((group.attribution, group.items))
    return hashlib.sha256(body).hexdigest()


def _hopeless(ask: Ask, ledger: Ledger) -> bool:
    """Waiting cannot help: even with every hold gone, a floor would not fit."""
    for balance, item in ask.items:
        if cause_of(ledger.balances[balance], item.floor) is not DenialCause.HELD:
            return True
    return False


def cause_of(balance: Balance, floor: int) -> DenialCause:
    """Why an amount does not fit: spent (402), in suspense, or only held by others (429).

    A permit in suspense comes back by itself: it is held, and waiting helps.
    """
    if balance.closed:
        return DenialCause.ENDED
    if balance.lends and floor <= balance.limit:
        return DenialCause.HELD
    if balance.spent + balance.overrun + floor > balance.limit:
        return DenialCause.LIMIT
    if balance.spent + balance.overrun + balance.suspense + floor > balance.limit:
        return DenialCause.SUSPENSE
    return DenialCause.HELD


def deny(group: str, balance: Balance, floor: int) -> Denial:
    cause = cause_of(balance, floor)
    return Denial(
        group=group,
        budget=balance.budget,
        value=balance.value,
        cause=cause,
        free=max(0, balance.free),
        limit=balance.limit,
        spent=balance.spent,
        held=balance.held + balance.given + (balance.suspense if balance.lends else 0),
        suspense=0 if balance.lends else balance.suspense,
        overrun=balance.overrun,
        window_ends_at_ms=balance.relief_at_ms,
        retry_after_ms=RETRY_HELD_MS if cause is DenialCause.HELD else 0,
    )
