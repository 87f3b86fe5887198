"""A book introduces itself: its epoch, and the leases that its inventory lacks."""

from datetime import datetime, timedelta
from uuid import UUID

from enforcement.errors import SpoolOfAnotherError
from enforcement.leasing import spools, store
from enforcement.leasing.adoption import adopt_forgotten
from enforcement.leasing.auth import SidecarIdentity
from enforcement.leasing.batch import Terms
from enforcement.leasing.checks import to_uuid
from enforcement.leasing.later import Connection
from enforcement.leasing.policies import Policy
from enforcement.rules.inventory import inventory_item
from enforcement.rules.policy import PolicySnapshot
from enforcement.rules.spools import Spool, greet, may_count
from enforcement.rules.wire import Header, Hello, Welcome

NOBODY = UUID(int=0)
_MAKE = """
    INSERT INTO enforcement_spool (id, organization_id, sidecar_id, book, boot, epoch, incarnation,
        kernel_boot_id, clean_shutdown, policy_revision, policy_valid_until, last_sync_at, health,
        sessions)
    VALUES (%s, %s, %s, %s, '', 1, %s, '', false, 0, %s, %s, '{}', '[]')
    ON CONFLICT DO NOTHING
"""
_UPDATE = """
    UPDATE enforcement_spool SET book = %s, boot = %s, epoch = %s, incarnation = %s,
        kernel_boot_id = %s, clean_shutdown = %s, policy_revision = %s, policy_valid_until = %s,
        last_sync_at = %s
    WHERE id = %s
"""


def _again(identity: SidecarIdentity, incarnation: str, policy: Policy, terms: Terms) -> Welcome:
    """The inventory was not made for this incarnation: it may lack leases (L11)."""
    return Welcome(
        organization=identity.organization,
        incarnation=incarnation,
        epoch=0,
        policy=PolicySnapshot(identity.organization, policy.revision),
        policy_ttl_ms=terms.policy_ttl_ms,
        lease_ttl_ms=terms.lease_ttl_ms,
        order_cursor=0,
        again=True,
    )


async def _seen(
    connection: Connection,
    header: Header,
    *,
    identity: SidecarIdentity,
    until: datetime,
    now: datetime,
) -> Spool:
    """The spool, locked; made when it is first heard of.

    Raises:
        SpoolOfAnotherError: it was first seen at another sidecar.
    """
    spool_id = to_uuid(header.spool)
    await connection.execute(
        _MAKE,
        [
            spool_id,
            to_uuid(identity.organization),
            to_uuid(identity.sidecar),
            header.book[:100],
            NOBODY,  # until its inventory counts
            until,
            now,
        ],
    )
    locked = await spools.lock(connection, [str(spool_id)])
    row = (await locked.get())[str(spool_id)]
    if row.sidecar != identity.sidecar:
        raise SpoolOfAnotherError("this spool belongs to another sidecar")
    if not row.spool.boot:
        row.spool.epoch = 0  # made a moment ago: its first life is epoch 1
    return row.spool


async def welcome(
    connection: Connection,
    hello: Hello,
    *,
    identity: SidecarIdentity,
    policy: Policy,
    order_cursor: int,
    terms: Terms,
) -> Welcome:
    """Run in a transaction. `order_cursor` was read before `policy`: no order falls between them.

    Raises:
        SpoolOfAnotherError: the spool was first seen at another sidecar.
    """
    header = hello.header
    now, incarnation = await (await store.moment(connection)).get()
    until = now + timedelta(milliseconds=terms.policy_ttl_ms)
    spool = await _seen(connection, header, identity=identity, until=until, now=now)
    if not may_count(spool, hello, incarnation=incarnation):
        return _again(identity, incarnation, policy, terms)
    greet(spool, boot=hello.boot[:64], incarnation=incarnation)
    await connection.execute(
        _UPDATE,
        [
            header.book[:100],
            spool.boot,
            spool.epoch,
            to_uuid(spool.incarnation),
            hello.kernel_boot_id[:64],
            hello.clean_shutdown,
            header.policy_revision,  # what it works by; the one in the Welcome may be lost
            until,
            now,
            to_uuid(spool.id),
        ],
    )
    await adopt_forgotten(
        connection,
        hello.inventory,
        spool=spool,
        policy=policy,
        organization=identity.organization,
        terms=terms,
        now=now,
    )
    known = {item.lease for item in hello.inventory}
    owed = await (await store.owed_leases(connection, [spool.id])).get()
    return Welcome(
        organization=identity.organization,
        incarnation=incarnation,
        epoch=spool.epoch,
        policy=policy.snapshot,
        policy_ttl_ms=terms.policy_ttl_ms,
        lease_ttl_ms=terms.lease_ttl_ms,
        order_cursor=header.order_cursor or order_cursor,  # one that was away catches up
        unknown=[
            inventory_item(lease, balance, sign=terms.sign)
            for lease, balance in owed
            if lease.id not in known
        ],
    )
