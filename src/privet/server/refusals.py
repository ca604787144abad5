"""What becomes of orders when one of their authorizations is refused or given up (RFC 8555 §7.1.6).

The law: who commits such an authorization commits these orders with it, so that none is left open that can never be
fulfilled.
"""

from privet.acme.status import Status
from privet.server.records import Authorization, Kind, Order, sharing_name
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Record


async def refused_orders(store: AsyncStore, authorization: Authorization) -> list[Order]:
    """The orders that wait for this authorization, as they are without it."""
    records: list[Record] = []
    if authorization.order is not None and (own := await store.get(Kind.ORDER, authorization.order)):
        records.append(own)
    after = ""
    while found := await store.find(Kind.ORDER, sharing_name(authorization.id), after=after, limit=100):
        records += found
        after = found[-1].id
    orders = map(Order.from_record, records)
    return [order.refuse(authorization) for order in orders if order.status is Status.PENDING]
