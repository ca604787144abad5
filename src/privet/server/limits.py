"""How much and how long: the ceilings that keep a looping client from filling the disk."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so long. All of them may come at once; then there is room again as time passes.

    Raises `ValueError` for less than one, or a period of less than a second.
    """

    most: int
    period: timedelta

    def __post_init__(self) -> None:
        if self.most < 1 or self.period < timedelta(seconds=1):
            raise ValueError("a rate is one at least, in a second at least")


_DAY = timedelta(days=1)


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
    authorizations_ahead: int = 100
    """Authorizations of one account made ahead of orders (RFC 8555 §7.4.1); each order looks through them."""
    orders_page: int = 100
    """Orders on one page of an account's list (RFC 8555 §7.1.2.1)."""

    # Rates. Ten thousand nodes behind one address that renew daily take half of the smallest that concerns them all. An
    # authorization made ahead of an order counts as one.
    accounts_of_network: Rate = Rate(20_000, _DAY)
    """New accounts from one client network: a /24, or the /64 of an IPv6 address."""
    orders_of_network: Rate = Rate(200_000, _DAY)
    orders_of_external_account: Rate = Rate(50_000, _DAY)
    """Orders of all accounts bound to one external account key."""
    orders_of_account: Rate = Rate(50_000, _DAY)
    orders_for_same_names: Rate = Rate(500, _DAY)
    """Orders of one account for the very same identifiers."""
    certificates_of_token: Rate = Rate(50_000, _DAY)
    """Certificates for one token, where roles are served (Vault's PKI API)."""
    validations_of_name: Rate = Rate(200, timedelta(hours=1))
    """Challenges of one account for one identifier that are validated, whatever comes of it."""

    validations_at_once: int = 10_000
    """Validations under way in one process. More of them wait in the store, until their clients ask again."""

    nonce_lifetime: timedelta = timedelta(hours=1)
    order_lifetime: timedelta = timedelta(days=1)
    """How long an order and its authorizations wait to be finished, and how long an authorization is good for."""
    authorization_reuse: timedelta = timedelta(0)
    """How long after its proof an authorization is good for further orders of its account; zero for its own alone."""
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
    retry_after_person: timedelta = timedelta(seconds=10)
    """The same where it waits for a person. It is longer because clients ask so many times and then give up: certbot
    thirty times, lego for a hundred times as long."""
