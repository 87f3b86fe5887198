"""What can go wrong with background work. None of these knows HTTP."""


class DutiesError(Exception):
    """Base of this app's errors."""


class LetterNotFoundError(DutiesError):
    """No such dead letter."""


class LetterSettledError(DutiesError):
    """Somebody was faster, or the task has succeeded since."""


class LetterIncompleteError(DutiesError):
    """Not all arguments were kept, so that it cannot be sent again."""


class ReasonMissingError(DutiesError):
    """Settling is audited: it needs a reason."""


class BrokerAwayError(DutiesError):
    """The broker took no message. Nothing has changed."""

    retry_after_s = 5
