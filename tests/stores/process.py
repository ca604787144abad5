"""What another process does to a store while a test looks on: `python process.py VERB URL ...`, one line per deed.

It waits for a line on its standard input before it begins, so that several begin together.
"""

import sys

from privet.stores import Conflict, Record, Store, open_store

KEY = b"-----BEGIN PRIVATE KEY-----\n%d\n"


def race(store: Store, name: str) -> None:
    """Try to be the first to write each of fifty orders, and count together with the others."""
    for number in range(50):
        try:
            store.commit(Record("order", str(number), name.encode(), unique=(f"name:{number}",)))
            print("won", number, flush=True)
        except Conflict:
            pass
        while True:
            try:
                count = store.get("counter", "") or Record("counter", "", b"0")
                store.commit(count._replace(body=b"%d" % (int(count.body) + 1)), durable=number % 2 == 0)
                break
            except Conflict:
                pass


def issue(store: Store) -> None:
    """Commit step after step, and say so after each, until somebody puts an end to it."""
    while True:
        print("stored", step(store), flush=True)


def step(store: Store) -> int:
    """One commit of everything a store has to keep together; the number in each part of it is the same."""
    order = store.get("order", "1") or Record("order", "1")
    bundle = store.get("certs", "*.internal") or Record("certs", "*.internal")
    number = order.version + 1
    store.commit(
        order._replace(body=b"%d" % number, index=(f"step:{number}",)),
        bundle._replace(body=b'{"number":%d}' % number, files={"cert.pem": b"%d" % number, "key.pem": KEY % number}),
        Record("certificate", f"{number:06}", b"%d" % number, unique=(f"serial:{number}",), files={"key.pem": KEY}),
    )
    return number


def check(store: Store) -> int:
    """Return the number of the last step; any part that is older or newer than the rest is an error."""
    order, bundle = store.get("order", "1"), store.get("certs", "*.internal")
    number = order.version if order else 0
    if order or bundle:
        assert order
        assert bundle
        assert (order.body, order.index) == (b"%d" % number, (f"step:{number}",))
        assert (bundle.version, bundle.body) == (number, b'{"number":%d}' % number)
        assert bundle.files == {"cert.pem": b"%d" % number, "key.pem": KEY % number}
        assert store.find("order", f"step:{number}") == [order]
        assert store.find("order", f"step:{number - 1}") == []
    certificates = store.find("certificate", limit=1_000_000)
    assert [int(certificate.body) for certificate in certificates] == list(range(1, number + 1))
    assert all(certificate.files == {"key.pem": KEY} for certificate in certificates)
    assert all(store.find("certificate", f"serial:{one}") for one in (1, number) if number)
    assert not store.find("certificate", f"serial:{number + 1}")
    return number


if __name__ == "__main__":
    verb, url, *arguments = sys.argv[1:]
    sys.stdin.readline()
    with open_store(url) as opened:
        if verb == "race":
            race(opened, *arguments)
        elif verb == "issue":
            issue(opened)
