"""What can be wrong with the use of the audit trail."""


class UnauditedChangeError(RuntimeError):
    """A change was to be recorded outside of its transaction: a mistake in our own code."""
