"""Bugs of policies, session trees and splits, and of what a failover forgets (L10-L12, L14-L16)."""

from base64 import urlsafe_b64decode

import msgspec

from enforcement.rules.book import Book, Effects
from enforcement.rules.delegation import Delegation
from enforcement.rules.ledger import Balance, Lease, Ledger, Transfer
from enforcement.rules.lots import life_ns
from enforcement.rules.matching import BalanceOf
from enforcement.rules.policy import BudgetPolicy, Per, PolicySnapshot
from enforcement.rules.rights import Rights
from enforcement.rules.sessiontree import Lineage
from enforcement.rules.splits import OTHER_VALUE
from enforcement.rules.wire import (
    Attribution,
    DenialCause,
    Grant,
    Group,
    GroupItem,
    SyncAnswer,
)
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.organization import DELEGABLE
from enforcement.simulation.sidecar import Sidecar
from enforcement.simulation.trees import Trees

# ---------------------------------------------------------------------------- keys, incarnations


class AnswersAnyContent(ControlPlane):
    def _is_reused(self, group: Group) -> bool:  # noqa: ARG002
        return False


class CutsWhatIsBooked(Sidecar):
    def _write(self) -> bool:
        written = super()._write()
        self.book.lots.forget(before_ms=self._kernel.now_ms + 1)
        return written


# ---------------------------------------------------------------------------- policies


class ArmsAtOnce(ControlPlane):
    def add_budget(self, limit: int) -> None:
        super().add_budget(limit)
        self.armed_revision, self.armed_us = self.policy.revision, self._kernel.now_us


class AcknowledgesUnread(Sidecar):
    def _take_policy(self, policy: PolicySnapshot) -> None:
        if self._charges is None:
            super()._take_policy(policy)


class RenewsAnOldPolicy(Book):
    def _renew_policy(self, answer: SyncAnswer, effects: Effects, *, sent_ns: int) -> None:  # noqa: ARG002
        self.policy_deadline_ns = sent_ns + life_ns(answer.policy_ttl_ms)


class StubbornBooks(Sidecar):
    book_type = RenewsAnOldPolicy


# ---------------------------------------------------------------------------- session trees


class KeepsWhatItGives(Trees):
    def _give(self, parent: Balance, amount: int) -> Transfer | None:
        moved = super()._give(parent, amount)
        if moved is not None:
            parent.given -= amount
        return moved


class GivesTwice(ControlPlane):
    trees_type = KeepsWhatItGives


class ForgetsHeld(Trees):
    def _bring_home(self, part: Delegation, parent: Balance, child: Balance) -> list[Transfer]:
        held, child.held = child.held, 0
        moved = super()._bring_home(part, parent, child)
        child.held = held
        return moved


class BringsHomeWhatIsOut(ControlPlane):
    trees_type = ForgetsHeld


class ForgetsSuspense(Trees):
    def _bring_home(self, part: Delegation, parent: Balance, child: Balance) -> list[Transfer]:
        suspense, child.suspense = child.suspense, 0
        moved = super()._bring_home(part, parent, child)
        child.suspense = suspense
        return moved


class BringsHomeSuspense(ControlPlane):
    trees_type = ForgetsSuspense


class EachChildAnew(Rights):
    def is_given(self, group: Group, item: GroupItem) -> bool:
        return item.budget == DELEGABLE and super().is_given(group, item)

    def balances_of_tree(
        self, lineage: Lineage, facts: Attribution
    ) -> dict[BalanceOf, BudgetPolicy]:
        found = super().balances_of_tree(lineage, facts)
        return {
            (key[0], lineage.session if budget.per == Per.SESSION else key[1]): budget
            for key, budget in found.items()
        }


class FreshChildren(ControlPlane):
    rights_type = EachChildAnew


class ParentsToo(Rights):
    def balances_of_tree(
        self, lineage: Lineage, facts: Attribution
    ) -> dict[BalanceOf, BudgetPolicy]:
        found = super().balances_of_tree(lineage, facts)
        budget = self._budgets[DELEGABLE]
        return found | {(DELEGABLE, lineage.levels[-1].session): budget}


class ChildrenPayTwice(ControlPlane):
    rights_type = ParentsToo


class ReadsNoSeal(Rights):
    def lineage(self, token: str) -> Lineage:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.json.decode(raw[16:], type=Lineage)


class AnyToken(ControlPlane):
    rights_type = ReadsNoSeal


class AsksNobody(Rights):
    def is_given(self, group: Group, item: GroupItem) -> bool:  # noqa: ARG002
        return False


class GiftsOfNobody(ControlPlane):
    rights_type = AsksNobody


# ---------------------------------------------------------------------------- splits


class EndlessSplits(ControlPlane):
    def _values(self, budget: BudgetPolicy, window: int) -> int:  # noqa: ARG002
        return 0


class BelievesWhatItIsTold(Rights):
    def budgets_of(self, group: Group) -> list[BudgetPolicy] | None:
        if group.attribution.delegation:
            return super().budgets_of(group)
        found = [self.budget(item.budget) for item in group.items]
        return [budget for budget in found if budget is not None]


class AnyClaim(ControlPlane):
    rights_type = BelievesWhatItIsTold


class FreeOverflow(Sidecar):
    def _shared(self, keys: tuple[BalanceOf, ...]) -> tuple[BalanceOf, ...]:
        return tuple(key for key in super()._shared(keys) if key[1] != OTHER_VALUE)


class SecondHelpings(ControlPlane):
    def _open(
        self, budget: BudgetPolicy, value: str, *, ahead: bool, given: bool
    ) -> Balance | DenialCause:
        known = super()._open(budget, value, ahead=ahead, given=given)
        if isinstance(known, Balance) and budget.per == Per.USER and known.free <= 0:
            del self.ledger.balances[known.id]
            return super()._open(budget, value, ahead=ahead, given=given)
        return known


# ---------------------------------------------------------------------------- windows


class OutlivesItsWindow(Ledger):
    def _ttl_ms(self, balance: Balance, *, now_ms: int) -> int:  # noqa: ARG002
        return self._lease_ttl_ms


class TellsNoOpening(Ledger):
    def grant_message(self, lease: Lease, *, now_ms: int) -> Grant:
        return msgspec.structs.replace(super().grant_message(lease, now_ms=now_ms), opens_in_ms=0)
