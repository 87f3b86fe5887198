"""What can go wrong between sidecars and the control plane. None of them knows HTTP."""


class EnforcementError(Exception):
    """Base of this app's errors."""


class UnsafeDatabaseError(EnforcementError):
    """The database would lose acknowledged grants, or is a replica."""


class SidecarNameTakenError(EnforcementError):
    """The organization has a sidecar of this name."""


class SpoolOfAnotherError(EnforcementError):
    """A spool identity that belongs to another sidecar."""


class GroupKeyReusedError(EnforcementError):
    """The same group key with other content (L10)."""


class MessageError(EnforcementError):
    """A message that cannot be understood; the text says where."""


class BusyError(EnforcementError):
    """More messages wait than can be answered in time."""


class NodeNameTakenError(EnforcementError):
    """The organization has a serving node of this name."""


class NodeAddressError(EnforcementError):
    """An address of a node that cannot be read, or should not be."""


class BillError(EnforcementError):
    """A provider's bill that cannot be read; the text says where."""


class NodeStateError(EnforcementError):
    """A node that is in this state already."""


class NodeLabelError(EnforcementError):
    """Labels of a node that are none; the text says why."""


class NodePatienceError(EnforcementError):
    """A patience with a node that is negative, or never ends."""


class NodeCostError(EnforcementError):
    """A cost that cannot be true; the text says what of it."""


class SpoolNotFoundError(EnforcementError):
    """No such spool in this organization."""


class UnreadableReportError(EnforcementError):
    """A body of reported calls that cannot be read; the text says where."""


class ReportTooLargeError(EnforcementError):
    """A body of reported calls with more bytes, or more calls, than are taken at once."""


class ReportFormatError(EnforcementError):
    """A body of reported calls in a format or encoding that nobody reads."""


class TooManyReportsError(EnforcementError):
    """An organization reports faster than it may."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
