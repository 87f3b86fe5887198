"""Planted protocol bugs: the simulator must find every one of them.

Each breaks one law of the lease protocol the way a real program would. What cannot be found here
proves nothing, so a mutant stays only while some seed exposes it.
"""

from dataclasses import dataclass

from enforcement.rules.ledger import Ledger
from enforcement.simulation import policybugs as policies
from enforcement.simulation import protocolbugs as protocol
from enforcement.simulation import spoolbugs as spools
from enforcement.simulation.controlplane import ControlPlane
from enforcement.simulation.sidecar import Sidecar


@dataclass(frozen=True)
class Mutant:
    """A planted bug: the law it breaks, in words, and the classes that break it."""

    law: str
    words: str
    ledger: type[Ledger] = Ledger
    sidecar: type[Sidecar] = Sidecar
    control: type[ControlPlane] = ControlPlane

    @property
    def name(self) -> str:
        for planted, sound in ((self.ledger, Ledger), (self.control, ControlPlane)):
            if planted is not sound:
                return planted.__name__
        return self.sidecar.__name__


MUTANTS = (
    Mutant("L1", "a settlement is paid twice from its lot", sidecar=protocol.SloppyBooks),
    Mutant("L2", "a hold is placed though one balance is short", sidecar=protocol.ForgetfulBooks),
    Mutant("L2", "a hold takes what there is, not what it needs", sidecar=protocol.GenerousBooks),
    Mutant("L2", "a strict hold covers a slice only", sidecar=protocol.HoldsOnlyASlice),
    Mutant("L2", "a hold covers the answer, not the prompt", sidecar=protocol.HoldsNoPrompt),
    Mutant(
        "L2",
        "a metered hold has no margin for the engine's stop",
        sidecar=protocol.MetersWithoutAMargin,
    ),
    Mutant(
        "L3",
        "running requests lose what they hold at the deadline",
        sidecar=protocol.HomesickBooks,
    ),
    Mutant("L3", "a lease never expires", ledger=protocol.LeasesLiveForEver),
    Mutant(
        "L3",
        "a deadline is believed after the clock stepped back",
        ledger=protocol.TrustsItsOwnClock,
    ),
    Mutant(
        "L4",
        "bytes go out before the hold is journaled",
        sidecar=protocol.ServesBeforeTheJournal,
    ),
    Mutant("L4", "settlements are not journaled", sidecar=protocol.JournalWithoutSettlements),
    Mutant(
        "L4",
        "a torn journal is believed after a power loss",
        sidecar=protocol.TrustsTheTailAfterPowerLoss,
    ),
    Mutant("L5", "use is reported as deltas", ledger=protocol.ReportsAsDeltas),
    Mutant("L5", "what came home is reported as deltas", ledger=protocol.ReturnsAsDeltas),
    Mutant("L5", "the last report wins, not the highest", ledger=protocol.LastReportWins),
    Mutant("L5", "a final is sent while requests still run", sidecar=protocol.ImpatientBooks),
    Mutant("L6", "an expired lease is given back", ledger=protocol.VoidOnExpiry),
    Mutant("L6", "an expired lease is spent at once", ledger=protocol.ExpiryIsFinal),
    Mutant("L6", "use that is told out of suspense is forgiven", ledger=protocol.LateUseIsForgiven),
    Mutant(
        "L6", "leases that the ledger asks for are never answered", sidecar=protocol.SilentBooks
    ),
    Mutant("L7", "an empty disk speaks for the old spool", sidecar=protocol.SpoolWithoutIdentity),
    Mutant("L7", "a new life of a book disowns its leases", sidecar=protocol.DisownsItsLeases),
    Mutant("L8", "a group is granted in part", ledger=protocol.GroupsGrantedInPart),
    Mutant("L9", "a grant is not checked against the limit", ledger=protocol.GrantsWithoutALimit),
    Mutant("L9", "a movement is not in the journal", ledger=protocol.GrantsBesideTheJournal),
    Mutant(
        "L11",
        "a final is forgotten before it is booked",
        sidecar=protocol.ForgetsBeforeItIsTold,
    ),
    Mutant("L10", "the same ask is granted twice", control=protocol.EveryAskIsNew),
    Mutant("L11", "a new incarnation grants before all have told", control=protocol.LearnsNothing),
    Mutant("L11", "what was forgotten is not adopted", control=protocol.AdoptsNothing),
    Mutant("L11", "a grant of the old incarnation is taken", sidecar=protocol.NostalgicBooks),
    Mutant("L12", "calls are let through under a policy that is over", sidecar=protocol.StaleBooks),
    Mutant("L13", "less is settled than was used", sidecar=protocol.CheapBooks),
    Mutant(
        "L16",
        "a lot of the coming window is used before that begins",
        sidecar=protocol.EarlyBooks,
    ),
    Mutant(
        "I1",
        "a rolling window lets go one part too soon",
        ledger=protocol.RollsOneBucketTooSoon,
    ),
    Mutant("I7", "a final gives back what was used", ledger=protocol.FinalReturnsAll),
    Mutant("I7", "a final spends what came home", ledger=protocol.FinalSpendsAll),
    Mutant("I7", "finals are not final", ledger=protocol.FinalityForgotten),
    Mutant("L10", "a key with other content is answered", control=policies.AnswersAnyContent),
    Mutant("L11", "a final is forgotten once it is booked", sidecar=policies.CutsWhatIsBooked),
    Mutant("L12", "a budget is armed before books know it", control=policies.ArmsAtOnce),
    Mutant("L12", "a policy is acknowledged, not taken", sidecar=policies.AcknowledgesUnread),
    Mutant("L12", "an old policy is renewed", sidecar=policies.StubbornBooks),
    Mutant("L14", "what is given stays with the parent", control=policies.GivesTwice),
    Mutant("L14", "what a child has out comes home", control=policies.BringsHomeWhatIsOut),
    Mutant("L14", "a child's suspense comes home", control=policies.BringsHomeSuspense),
    Mutant("L14", "a child has own undelegated budgets", control=policies.FreshChildren),
    Mutant("L14", "a child pays its parent as well", control=policies.ChildrenPayTwice),
    Mutant("L14", "any token is believed", control=policies.AnyToken),
    Mutant("L14", "a part that nobody gave is made", control=policies.GiftsOfNobody),
    Mutant("L15", "a split has no end", control=policies.EndlessSplits),
    Mutant("L15", "a balance is leased to whom names it", control=policies.AnyClaim),
    Mutant("L15", "what overflows pays nothing", sidecar=policies.FreeOverflow),
    Mutant("L15", "a used up balance is made anew", control=policies.SecondHelpings),
    Mutant("L16", "a lease outlives its window", ledger=policies.OutlivesItsWindow),
    Mutant("L16", "a grant does not say when it opens", ledger=policies.TellsNoOpening),
    Mutant("L4", "a torn tail is not cut", sidecar=spools.TornTailsStay),
    Mutant("L4", "a failed write leaves a piece behind", sidecar=spools.FailedWritesLeavePieces),
    Mutant("L4", "what cannot be written is dropped", sidecar=spools.FailedWritesAreDropped),
    Mutant("L4", "a call is served though its record failed", sidecar=spools.GoesOnUnwritten),
    Mutant("L4", "bytes go out before the write", sidecar=spools.ForwardsBeforeItWrites),
    Mutant("L4", "a failed sync is ignored", sidecar=spools.IgnoresFailedSyncs),
    Mutant("L4", "a damaged spool is read around", sidecar=spools.ReadsAroundDamage),
)
