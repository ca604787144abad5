import contextlib
import pickle
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from privet.cli.failures import Failure
from privet.cli.serve.listening import is_public, listen, listen_at, resolve, spread


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.0.1", False),
        ("100.64.0.1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("::ffff:0.0.0.0", True),
        ("8.8.8.8", True),
        ("::ffff:8.8.8.8", True),
        ("2001:4860:4860::8888", True),
    ],
)
def test_what_anybody_may_reach_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_stands_for_all_its_addresses() -> None:
    assert "127.0.0.1" in resolve("localhost")
    assert resolve("127.0.0.1") == ["127.0.0.1"]
    for nobody in ("no-such-name.invalid", "a" * 70, "x..y"):
        with pytest.raises(Failure, match="is neither an address nor a name that can be resolved"):
            resolve(nobody)


def test_all_addresses_of_a_name_have_the_same_port_and_take_connections() -> None:
    with listen("localhost", 0) as sockets:
        addresses = {listening.getsockname()[:2] for listening in sockets}
        assert len({port for _, port in addresses}) == 1
        for address in addresses:
            socket.create_connection(address).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(next(iter(addresses)))


def test_where_it_cannot_listen_is_told() -> None:
    with listen("127.0.0.1", 0) as [taken]:
        port = taken.getsockname()[1]
        with pytest.raises(Failure, match=f"127.0.0.1 port {port} is in use by another program: stop it, or choose"):
            listen("127.0.0.1", port).__enter__()
    with pytest.raises(Failure, match=r"198.51.100.1 is no address of this machine: choose one that is with --host"):
        listen("198.51.100.1", 0).__enter__()


def test_a_socket_has_its_mode_from_the_start_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "privet.sock"
    with listen_at(path, 0o660):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        with pytest.raises(Failure, match="another program listens on the socket"):
            listen_at(path, 0o660).__enter__()
    assert not path.exists()


def test_a_socket_that_a_killed_server_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "privet.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with listen_at(path, 0o600):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_socket_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "privet.sock"
    with socket.socket(socket.AF_UNIX) as successor:
        with listen_at(path, 0o600):
            path.rename(tmp_path / "old")
            successor.bind(str(path))
        assert path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(Failure, match="exists and is no socket"):
        listen_at(file, 0o600).__enter__()
    assert file.read_text() == "precious"
    with pytest.raises(Failure, match="No such file or directory; choose another with --uds"):
        listen_at(tmp_path / "nowhere" / "privet.sock", 0o600).__enter__()
    with pytest.raises(Failure, match="AF_UNIX path too long; choose another with --uds"):
        listen_at(tmp_path / ("a" * 200), 0o600).__enter__()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_what_workers_are_given_listens_at_the_same_address(host: str) -> None:
    """Sent to another process, each of them is a socket there."""
    try:
        stack = contextlib.ExitStack()
        sockets = stack.enter_context(listen(host, 0, shared=True))
    except Failure:
        pytest.skip(f"this machine has no {host}")
    with stack:
        given = spread(sockets)
        own = [pickle.loads(pickle.dumps(each)) for each in given[len(sockets) :]]
        try:
            assert len(own) == 4 * len(sockets)
            assert {each.getsockname() for each in own} == {each.getsockname() for each in sockets}
            for each in sockets:
                socket.create_connection(each.getsockname()[:2]).close()
        finally:
            for each in own:
                each.close()


def test_a_socket_file_is_shared_as_it_is() -> None:
    with tempfile.TemporaryDirectory() as short, listen_at(Path(short) / "a", 0o600) as sockets:
        assert spread(sockets) == sockets
