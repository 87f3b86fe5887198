"""The life of a simulated sidecar worker: it boots from its disk, writes, and dies at any effect.

It does what the real shell does, in the same order: write the journal, then act.
"""

from collections.abc import Callable

from enforcement.rules.book import Book
from enforcement.rules.lots import Hold, Lots
from enforcement.rules.recovery import recover
from enforcement.rules.spoolframes import DamageError
from enforcement.simulation.disk import Disk
from enforcement.simulation.engine import Engine, Request, Truth
from enforcement.simulation.kernel import Kernel

FASTEST = 4  # tokens an engine makes in one step
ABORT_STEPS = 10  # how long an engine may go on after nobody listens


class Process(Engine):
    """One worker: its own book, spool and epoch. `number` also names its host (two to a host)."""

    lots_type: type[Lots] = Lots
    book_type: type[Book] = Book
    disk_type: type[Disk] = Disk

    def __init__(self, kernel: Kernel, truth: Truth, number: int) -> None:
        super().__init__(truth)
        self._kernel = kernel
        self.number = number
        self.disk = self.disk_type(f"spool-{number}.0")
        self.clock_rate = 1 + kernel.random.uniform(-0.02, 0.02)
        self.kernel_boot = 0
        self.life = 0
        self.up = self.paused = False
        self.running: list[Request] = []
        self.allowed_over: dict[str, int] = {}  # by lease: what a crash may count too much
        self.power_lost: set[str] = set()
        self._fuse = 0  # effects until the process dies; 0: it does not
        self._unsaid: dict[int, Hold] = {}  # holds of whose end the disk has not heard
        self.on_died: Callable[[], None] = lambda: None
        self.on_given_up: Callable[[str], None] = lambda _spool: None

    @property
    def now_ns(self) -> int:
        return int(self._kernel.now_us * self.clock_rate) * 1_000

    # ------------------------------------------------------------------ life

    def boot(self) -> None:
        """Recover what the disk says, and write what recovery decides."""
        if self.up:
            return
        self.life += 1
        self.up, self.paused = True, False
        self._fuse, self._unsaid = 0, {}
        self.running = []
        self.book = self.book_type(
            organization="org", spool=self.disk.spool, name=f"book-{self.number}"
        )
        self.book.lots = self.lots_type()
        try:
            journal = self.disk.open()
        except DamageError:
            self.on_given_up(self.lose_disk())
            self.book.spool, journal = self.disk.spool, []
        found = recover(
            self.book,
            journal,
            kernel_boot_id=str(self.kernel_boot),
            distrust=self.disk.marked,
        )
        self._write()
        self.disk.trust_again()
        self.book.epoch = found.epoch

    def crash(self, *, power: bool = False) -> None:
        """The process dies. Engines go on for a while; a power loss also takes the disk's tail."""
        if not self.up:
            return
        self.up = False
        self.life += 1
        for request in self.running:
            steps = self._kernel.random.randint(0, ABORT_STEPS)
            self._produce(request, steps * FASTEST)
        for hold in self._unsaid.values():
            for pairs in hold.parts.values():
                for lot, amount in pairs:
                    over = self.allowed_over.get(lot.lease, 0)
                    self.allowed_over[lot.lease] = over + amount
        if power or self.disk.marked or self.disk.dropped_from is not None:
            self._lose_the_tail(power=power)

    def _lose_the_tail(self, *, power: bool) -> None:
        """What the disk had not synced is gone, or may be."""
        finals = self.disk.finals()
        self.disk.die(self._kernel.random, power=power)
        if power:
            self._end_the_kernel()
        known = finals | self.book.lots.by_lease.keys()  # a final may never have been written
        self.power_lost |= known - self.disk.finals()

    def _end_the_kernel(self) -> None:
        self.kernel_boot += 1

    def lose_disk(self) -> str:
        """The volume is gone: a new spool identity, the old one never speaks again."""
        gone = self.disk.spool
        generation = int(gone.rsplit(".", 1)[1]) + 1
        self.disk = self.disk_type(f"spool-{self.number}.{generation}")
        return gone

    def _write(self) -> bool:
        """Journal before acting (L4). False: it is not on disk, nothing may rely on it."""
        out = self.book.lots.journal_out
        if out and self._fuse:
            self._burn(lambda: self.disk.tear(out, self._kernel.random))
        written = self.disk.append(out) if out else self.disk.accepts_holds
        if written and self._unsaid:
            for number in [n for n, hold in self._unsaid.items() if hold.settled]:
                del self._unsaid[number]
        return written

    def _burn(self, at_the_end: Callable[[], None] = lambda: None) -> None:
        """One more effect before the process dies, if it is to die between two of them."""
        if self._fuse:
            self._fuse -= 1
            if not self._fuse:
                at_the_end()
                raise InterruptedError

    def set_fuse(self, effects: int) -> None:
        """Die before the n-th effect from now, or within it, if it is a write."""
        self._fuse = effects

    def run(self, act: Callable[..., None], *args: object) -> None:
        """Let this process act; it may die of it."""
        try:
            act(*args)
        except InterruptedError:
            self.crash()
            self.on_died()

    def _later(self, delay_ms: int, act: Callable[..., None], *args: object) -> None:
        """Act after a delay, if this life lasts so long."""
        self._kernel.at(delay_ms, self.run, act, self.life, *args)

    def _sync_disk(self, then: Callable[[], None]) -> None:
        upto, disk, life = len(self.disk.data), self.disk, self.life

        def done() -> None:
            if self.life == life and disk.sync(upto):
                self.run(then)

        self._kernel.at(self._kernel.random.uniform(1, 40), done)
