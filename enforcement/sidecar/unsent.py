"""What a call that was not sent yet answers to those who watch running calls."""

from enforcement.rules.wire import SessionInfo, UsageEvent


class Unsent:
    """Nothing is held, nothing runs, nothing flows."""

    __slots__ = ()

    def client_paused(self) -> None:
        """Nothing is being sent yet."""

    def client_resumed(self) -> None:
        """Nothing is being sent yet."""

    def check_deadline(self, now_ns: int) -> None:
        """Waiting has its own timers."""

    def freeze(self) -> None:
        """Nothing is held yet."""

    @property
    def waits(self) -> bool:
        return True

    @property
    def streaming(self) -> bool:
        return False

    @property
    def produced(self) -> int:
        return 0

    def session_info(self, now_ms: int) -> SessionInfo | None:
        """Nothing runs yet."""

    def presumed_event(self) -> tuple[int, UsageEvent] | None:
        """Nothing is held yet."""
