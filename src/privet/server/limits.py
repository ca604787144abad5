"""How much and how long: the ceilings that keep a looping client from filling the disk."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings and lifetimes of a responder; generous for a fleet, and never endless."""

    body: int = 64 * 1024
    """Bytes of a request's body, counted before anything is parsed."""
    identifiers: int = 100
    """Identifiers of one order."""
    open_orders: int = 1000
    """Orders of one account that are neither valid nor invalid."""
    pending_authorizations: int = 1000
    """Authorizations of one account that wait for proof."""
    orders_page: int = 100
    """Orders on one page of an account's list (RFC 8555 §7.1.2.1)."""

    nonce_lifetime: timedelta = timedelta(hours=1)
    order_lifetime: timedelta = timedelta(days=1)
    """How long an order and its authorizations wait to be finished, and how long an authorization is good for."""
    new_account_lifetime: timedelta = timedelta(days=30)
    """How long an account is kept that has never ordered anything."""
    account_lifetime: timedelta = timedelta(days=400)
    """How long an account is kept after its last order, give or take half of that."""

    policy: timedelta = timedelta(seconds=10)
    """How long an async policy may think; what takes longer is a no."""
    patience: timedelta = timedelta(seconds=1.5)
    """How long an answer to a challenge waits for the validator before it says `processing`."""
    validation: timedelta = timedelta(seconds=60)
    """How long a validator may take; what takes longer has failed."""
    signing: timedelta = timedelta(seconds=10)
    """How long after a finalize was cut short another request may finish it."""
    retry_after: timedelta = timedelta(seconds=2)
    """When a client that waits should ask again."""
