"""`privet serve --metrics`: what a server does, for Prometheus, on a port of its own.

The law of this module: a label has few values, whoever asks for what; and what several workers count is one number.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from privet.cli.failures import Failure
from privet.server.events import Answered, Event, Issued, Pruned, Revoked, Stored, Validated

# Where workers leave what they count; the library reads it when it is imported, which workers do anew.
_SHARED = "PROMETHEUS_MULTIPROC_DIR"

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """An `Observer` that counts. There is one for each process."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        # Workers have none to share: what they count is put together from what they leave on disk.
        registry = registry or CollectorRegistry()
        self._requests = Histogram(
            "privet_request_duration_seconds",
            "Time to answer a request, by resource and status.",
            ("resource", "status"),
            buckets=_QUICK,
            registry=registry,
        )
        # What is counted for every request is looked up once: the library checks names and takes a lock each time.
        self._answered: dict[tuple[str, int], Histogram] = {}
        self._refused = Counter(
            "privet_refusals", "Requests that were refused, by the type of the problem.", ("type",), registry=registry
        )
        self._issued = Counter(
            "privet_certificates_issued", "Certificates issued, by profile.", ("profile",), registry=registry
        )
        self._revoked = Counter(
            "privet_certificates_revoked", "Certificates revoked by who has them.", ("reason",), registry=registry
        )
        self._validations = Counter(
            "privet_validations", "Challenges that were decided.", ("type", "outcome"), registry=registry
        )
        self._store = Histogram(
            "privet_store_duration_seconds",
            "Time for which requests waited for the store, once for all that asked together.",
            buckets=_QUICK,
            registry=registry,
        )
        self._pruned = Counter("privet_records_pruned", "Expired records that were forgotten.", registry=registry)

    def __call__(self, event: Event) -> None:
        match event:
            case Answered():
                kind = (event.resource, event.status)
                child = self._answered.get(kind)
                if child is None:
                    child = self._answered[kind] = self._requests.labels(event.resource, str(event.status))
                child.observe(event.seconds)
                if event.problem:
                    self._refused.labels(event.problem).inc()
            case Stored():
                self._store.observe(event.seconds)
            case Issued():
                self._issued.labels(event.profile).inc()
            case Revoked():
                self._revoked.labels(str(event.reason)).inc()
            case Validated():
                self._validations.labels(event.challenge, "valid" if event.valid else "invalid").inc()
            case Pruned():
                self._pruned.inc(event.records)


def count_replaced(registry: CollectorRegistry) -> Callable[[], None]:
    """What the supervisor of the workers is to call for each that it replaces."""
    replaced = Counter("privet_workers_replaced", "Workers that died, hung or could not start.", registry=registry)
    return replaced.inc


@contextlib.contextmanager
def published(address: tuple[str, int], workers: int, authority_ends: datetime) -> Iterator[CollectorRegistry]:
    """Answer `GET /metrics` at this address. What the workers count in their own processes is put together here.

    Raises `Failure` if the address cannot be listened at.
    """
    with contextlib.ExitStack() as stack:
        registry = CollectorRegistry()
        ends = Gauge("privet_authority_expires_days", "Days until the authority ends.", registry=registry)
        ends.set_function(lambda: (authority_ends.timestamp() - time.time()) / 86400)
        if workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="privet-metrics-"))
            os.environ[_SHARED] = folder
            stack.callback(os.environ.pop, _SHARED, None)
            MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        host, port = address
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise Failure(
                f"metrics cannot be served at {host}:{port}: {error.strerror or error}; choose another with --metrics"
            ) from None
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        yield registry
