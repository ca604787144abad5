"""What happens to servers. Each harm is done and undone; what it was goes into the log."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from random import Random

from tests.chaos.servers import Replica, Replicas, Site

Harm = Callable[[Site, Random], str]


def _last(harm: AbstractContextManager[None], chance: Random, most: float) -> str:
    seconds = 0.1 + chance.random() * most
    with harm:
        time.sleep(seconds)
    return f"for {seconds:.1f} s"


def kill_worker(site: Site, chance: Random) -> str:
    site.replicas[0].kill_worker(chance.randrange(2))
    return "kill -9 of a worker"


def kill_all(site: Site, chance: Random) -> str:
    for replica in site.replicas:
        replica.kill()
    time.sleep(chance.random())
    for replica in site.replicas:
        replica.start()
    return "kill -9 of everything, and a new start"


def kill_replica(site: Site, chance: Random) -> str:
    replica = _any(site, chance)
    replica.kill()
    time.sleep(chance.random())
    replica.start()
    return "kill -9 of a replica, and a new start"


def restart(site: Site, chance: Random) -> str:
    replica = _any(site, chance)
    replica.stop()
    replica.start()
    return "a restart"


def pause(site: Site, chance: Random) -> str:
    return f"stopped in the middle {_last(_any(site, chance).paused(), chance, 2)}"


def fill_disk(site: Site, chance: Random) -> str:
    if site.disk.mounted:
        return f"a full disk {_last(site.disk.full(), chance, 2)}"
    return f"files that cannot grow {_last(site.replicas[0].small_files(), chance, 2)}"


def read_only(site: Site, chance: Random) -> str:
    (replica,) = site.replicas
    replica.kill()
    if not site.disk.mounted:
        replica.start()
        return "kill -9 (no disk that could be read-only)"
    with site.disk.read_only():
        sentence = replica.fail_to_start()
        assert sentence.startswith("privet: the store "), sentence
    replica.start()
    return f"kill -9, a start on a read-only disk ({sentence.partition(': ')[2]}), and a new start"


def set_clock(site: Site, chance: Random) -> str:
    # Less than a nonce lives: by more, and back, and a nonce may be good again (docs/limits.md).
    minutes = chance.randrange(-50, 50)
    site.clock.set(minutes)
    return f"the clock goes by {minutes} minutes" if site.clock.there else "nothing (no libfaketime)"


def crash_database(site: Site, chance: Random) -> str:
    assert isinstance(site, Replicas)
    site.database.stop("immediate")
    site.crashes += 1  # not before: what is answered until it has stopped may be lost as well
    time.sleep(chance.random())
    site.database.start()
    return "a crash of the database, and a new start"


def lose_database_and_worker(site: Site, chance: Random) -> str:
    """What takes the worker's place finds no database."""
    assert isinstance(site, Replicas)
    site.database.stop("fast")
    kill_worker(site, chance)
    time.sleep(chance.random() * 8)
    site.database.start()
    return "no database for some seconds, and kill -9 of a worker meanwhile"


def restart_database(site: Site, chance: Random) -> str:
    assert isinstance(site, Replicas)
    site.database.stop("fast")
    site.database.start()
    return "a restart of the database"


def read_only_database(site: Site, chance: Random) -> str:
    assert isinstance(site, Replicas)
    with ExitStack() as stack:
        site.database.do("ALTER SYSTEM SET default_transaction_read_only = on")
        stack.callback(site.database.do, "SELECT pg_reload_conf()")
        stack.callback(site.database.do, "ALTER SYSTEM RESET default_transaction_read_only")
        site.database.do("SELECT pg_reload_conf()")
        time.sleep(0.1 + chance.random() * 2)
    return "a read-only database"


def cut_network(site: Site, chance: Random) -> str:
    assert isinstance(site, Replicas)
    if not site.network.there:
        return restart_database(site, chance)
    return f"no network to the database {_last(site.network.cut(), chance, 4)}"


def _any(site: Site, chance: Random) -> Replica:
    return chance.choice(site.replicas)


ON_FILES: tuple[Harm, ...] = (kill_worker, kill_all, restart, pause, fill_disk, read_only, set_clock)
ON_POSTGRESQL: tuple[Harm, ...] = (
    kill_worker,
    lose_database_and_worker,
    kill_replica,
    kill_all,
    restart,
    pause,
    crash_database,
    restart_database,
    read_only_database,
    cut_network,
)
