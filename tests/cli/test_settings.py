from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privet.cli.failures import Mistakes
from privet.cli.settings import (
    READERS,
    Read,
    Reader,
    Settings,
    option_name,
    read_mode,
    read_mount,
    read_settings,
    read_url,
    variable_name,
)
from privet.server.durations import read_duration


def read(environment: Mapping[str, str] | None = None, **options: object) -> Settings:
    return read_settings(options, environment or {}).checked()


def mistakes(environment: Mapping[str, str] | None = None, **options: object) -> tuple[str, ...]:
    with pytest.raises(Mistakes) as raised:
        read(environment, **options)
    assert raised.value.status == 2
    return raised.value.sentences


def test_without_any_there_are_defaults() -> None:
    assert read() == Settings()


def test_nothing_that_lets_anybody_in_has_a_default() -> None:
    """Lesson 22: no password, key or token that is the same on every server."""
    secrets = [name for name in READERS if any(word in name for word in ("password", "secret", "token", "key"))]
    assert secrets
    assert [getattr(Settings(), name) for name in secrets] == [None] * len(secrets)
    assert "@" not in Settings().store


def test_an_option_counts_more_than_a_variable_and_a_variable_more_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "privet.toml"
    file.write_text('port = 1001\nworkers = 2\nhost = "10.0.0.1"\ntls = true\nauto-approve = true\n')
    found = read(
        {"PRIVET_CONFIG": str(file), "PRIVET_PORT": "1002", "PRIVET_WORKERS": "3", "PRIVET_TLS": "no"},
        port="1003",
        auto_approve=False,
    )
    assert (found.port, found.workers, found.host, found.tls, found.auto_approve) == (1003, 3, "10.0.0.1", False, False)


def test_the_file_that_an_option_names_is_read_and_not_the_variables(tmp_path: Path) -> None:
    ours = tmp_path / "ours.toml"
    ours.write_text("port = 1")
    assert read({"PRIVET_CONFIG": "/nowhere"}, config=str(ours)).port == 1


def test_what_is_empty_was_not_said() -> None:
    assert read({"PRIVET_PORT": "", "PRIVET_HOST": ""}, tls_name=[], external_url=None) == Settings()


def test_a_list_is_several_options_or_has_commas_or_is_a_list(tmp_path: Path) -> None:
    file = tmp_path / "privet.toml"
    file.write_text('tls-name = ["a.internal", "10.0.0.1"]')
    names = ("a.internal", "10.0.0.1")
    assert read(config=str(file)).tls_name == names
    assert read({"PRIVET_TLS_NAME": "a.internal, 10.0.0.1"}).tls_name == names
    assert read(tls_name=list(names)).tls_name == names


def test_what_a_file_names_lies_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "privet.toml"
    paths = ("key_password_file", "ca_cert", "ca_key", "backup_password_file", "uds", "client_ca", "policy", "roles")
    file.write_text("".join(f'{name} = "a/{name}"\n' for name in paths) + 'store = "sqlite:///privet.db"\ncn = "a"\n')
    found = read(config=str(file))
    assert [getattr(found, name) for name in paths] == [tmp_path / "a" / name for name in paths]
    assert (found.store, found.cn) == (f"sqlite:///{tmp_path}/privet.db", "a")
    assert read({"PRIVET_POLICY": "b", "PRIVET_STORE": "file:///b"}, config=str(file)).policy == Path("b")
    assert read({"PRIVET_STORE": "file:///b"}, config=str(file)).store == "file:///b"
    assert read(config=str(file), policy="c").policy == Path("c")
    for store in ("sqlite:////var/privet.db", "file:///~/privet", "memory:"):
        file.write_text(f'store = "{store}"\npolicy = "/etc/policy.toml"\nuds = "~/x"\n')
        found = read(config=str(file))
        assert (found.store, found.policy, found.uds) == (store, Path("/etc/policy.toml"), Path("~/x").expanduser())


def test_all_mistakes_are_told_at_once_and_say_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "privet.toml"
    file.write_text('wokers = 3\nport = "many"\nzzz = 1\ncn = ""\n')
    told = mistakes({"PRIVET_WORKERS": "0", "PRIVET_MOUNT": "acme"}, config=str(file), port="70000", tls_name=["x..y"])
    assert told == (
        f"wokers in {file} is no setting; did you mean workers?",
        f"zzz in {file} is no setting; `privet serve --help` names them all",
        f"cn in {file} has to be a text, not ''",
        f"port in {file} has to be a number from 0 to 65535, not 'many'",
        "--port has to be a number from 0 to 65535, not '70000'",
        "PRIVET_MOUNT has to be a path that begins with a slash, such as /acme, not 'acme'",
        "PRIVET_WORKERS has to be a number from 1 to 256, not '0'",
        "--tls-name has a name that is none: 'x..y' is not a valid DNS name: it has an empty label",
    )


WRONG: Mapping[str, object] = {
    "store": "privet.db",
    "name": " ",
    "cn": "a" * 65,
    "ca_validity": "10",
    "permit": ["*.internal"],
    "exclude": ["10.0.0.1/8"],
    "key_password_file": "",
    "ca_cert": "",
    "ca_key": "",
    "backup_password_file": "",
    "validity": "0s",
    "host": 5,
    "port": -1,
    "uds": True,
    "uds_mode": "999",
    "external_url": "ca.internal",
    "mount": "/a b",
    "trusted_proxy": ["", "x"],
    "workers": 1.5,
    "log_level": "loud",
    "log_format": "xml",
    "metrics": "9464",
    "tls": "perhaps",
    "tls_name": [1],
    "tls_validity": "1 fortnight",
    "client_ca": 5,
    "plain_http": 2,
    "auto_approve": "",
    "approve_anybody": [],
    "ask_challenges": {},
    "ask_person": "perhaps",
    "policy": [],
    "require_eab": "perhaps",
    "roles": [],
    "validate": [],
    "validate_within": "soon",
    "resolver": ["10.0.0.53:70000"],
    "validate_allow": ["10.0.0.1/8"],
    "validate_deny": ["storage"],
    "http_01_port": 0,
    "caa": "perhaps",
    "caa_identity": ["10.0.0.1"],
    "reuse_authorizations": 0,
    "limit": ["open-orders=none"],
    "terms_of_service": "ftp://x",
    "website": "javascript:alert(1)",
}


def test_there_is_a_mistake_for_every_setting() -> None:
    assert WRONG.keys() == READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_a_mistake_in_the_file_is_told_by_its_key(tmp_path: Path, name: str) -> None:
    file = tmp_path / "privet.toml"
    wrong = WRONG[name]
    toml = {True: "true"}.get(wrong) if isinstance(wrong, bool) else "{}" if wrong == {} else repr(wrong)
    file.write_text(f"{option_name(name)} = {toml}\n")
    (sentence,) = mistakes(config=str(file))
    assert sentence.startswith(f"{option_name(name)} in {file} ha")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"port = ", "is not TOML: Invalid value"),
        (b"\xff", "is not TOML: 'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    file = tmp_path / "privet.toml"
    if content is not None:
        file.write_bytes(content)
    (told,) = mistakes(config=str(file))
    assert told.startswith(f"the configuration file {file} {sentence}")


def test_a_home_that_is_not_there_is_told() -> None:
    assert mistakes(uds="~nobody-of-this-name/x", config="~nobody-of-this-name/y") == (
        "the configuration file ~nobody-of-this-name/y cannot be read: Could not determine home directory.",
        "--uds names a home directory that is not there: '~nobody-of-this-name/x'",
    )


def test_in_the_file_hyphens_and_underscores_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "privet.toml"
    file.write_text('external_url = "https://ca.internal"\nuds-mode = "600"')
    found = read(config=str(file))
    assert (found.external_url, found.uds_mode) == ("https://ca.internal", 0o600)


def test_kubernetes_may_have_a_service_of_our_name() -> None:
    """It tells every container: PRIVET_PORT=tcp://…, which is no port of ours."""
    found = read_settings({}, {"PRIVET_PORT": "tcp://10.0.0.1:8555", "PRIVET_SERVICE_HOST": "10.0.0.1"})
    assert found == Read(Settings(), (), frozenset(), ())


def test_a_variable_that_looks_like_ours_is_worth_a_warning() -> None:
    found = read_settings({}, {"PRIVET_AUTO_APROVE": "1", "OTHER": "1"})
    assert found.settings == Settings()
    assert found.warnings == ("the variable PRIVET_AUTO_APROVE is no setting; did you mean PRIVET_AUTO_APPROVE?",)


def test_every_setting_has_a_reader_and_a_variable() -> None:
    assert list(READERS) == list(Settings.__slots__)
    assert len({variable_name(name) for name in READERS}) == len(READERS)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90m", timedelta(minutes=90)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("1d12h", timedelta(hours=36)),
        ("1.5h", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
        ("6s", timedelta(seconds=6)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert read_duration(text) == duration


def outcome(reader: Reader, text: str) -> object:
    """What a text is read as, or what is said about it; any other exception breaks the law."""
    try:
        return reader(text)
    except ValueError as error:
        return str(error)


@settings(deadline=None)
@given(st.text() | st.from_regex(r"[0-9.]{1,40}[smhdw]"))
def test_any_text_is_a_duration_or_a_mistake(text: str) -> None:
    found = outcome(read_duration, text)
    if isinstance(found, timedelta):
        assert timedelta(seconds=1) <= found <= timedelta(days=36500)
    else:
        assert str(found).startswith("has to be ")


@settings(deadline=None)
@given(st.text() | st.text().map(lambda text: f"https://{text}"))
def test_any_text_is_an_address_or_a_mistake(text: str) -> None:
    found = str(outcome(read_url, text))
    assert found.startswith("has to be ") or (found == text.rstrip("/") and found.isprintable())


def test_an_address_is_that_of_the_responder_and_not_of_its_directory() -> None:
    assert read_url("https://ca.internal:8555/acme/") == "https://ca.internal:8555/acme"
    with pytest.raises(ValueError, match="leave /directory out"):
        read_url("https://ca.internal/acme/directory")


@pytest.mark.parametrize(
    "text", ["https://ca.internal#", "https://ca.internal?", "https://ca.internal/acme?", "https://ca.internal/#a?b"]
)
def test_an_address_has_no_query_and_no_fragment(text: str) -> None:
    (sentence,) = mistakes(external_url=text)
    assert sentence == f"--external-url has to be an address without a query or a fragment, not '{text}'"


@pytest.mark.parametrize("text", ["660", "0660", "0o660"])
def test_a_mode_is_octal(text: str) -> None:
    assert read_mode(text) == 0o660


@pytest.mark.parametrize("text", ["o660", "00o660", "0660 ", "66", "1660", "\u0666\u0666\u0660"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(ValueError, match="has to be a file mode"):
        read_mode(text)


@pytest.mark.parametrize(("written", "number"), [("0o660", 432), ("660", 660)])
def test_a_mode_in_the_file_is_a_text_because_a_number_is_another(tmp_path: Path, written: str, number: int) -> None:
    file = tmp_path / "privet.toml"
    file.write_text(f"uds-mode = {written}")
    assert mistakes(config=str(file)) == (
        f'uds-mode in {file} has to be a file mode, as a text such as "660", not {number}',
    )


@pytest.mark.parametrize(
    ("text", "mount"), [("", ""), ("/", ""), ("/acme", "/acme"), ("/acme/", "/acme"), ("/a/b", "/a/b")]
)
def test_where_it_is_mounted(text: str, mount: str) -> None:
    assert read_mount(text) == mount


@pytest.mark.parametrize("text", ["acme", "//", "/a//b", "/a?b", "/../", "/a/.", "/ä"])
def test_where_it_cannot_be_mounted(text: str) -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        read_mount(text)
