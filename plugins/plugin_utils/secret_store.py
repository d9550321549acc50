# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's keys and its memory, in a folder of the operator's.

``secrets.json`` has the keys of ipyparallel's connections, ``passwords.json`` the passwords of the
database's accounts, ``ca.json`` the authority, ``certificates.json`` what it has signed, ``jupyterlab.json``
what lets one into JupyterLab, and ``ssh.json`` the key by which hosts log in to each other; each may be
encrypted with ansible-vault.
``state.json`` has what is not secret: which engine id belongs to which slot, and whether the fleet was
ever deployed with these keys. All are written whole or not at all.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import check_authority, new_authority
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import CertificateProblem, Pair, load_key, read
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SECRETS, STATE = "secrets.json", "state.json"
PASSWORDS, AUTHORITY, CERTIFICATES = "passwords.json", "ca.json", "certificates.json"
NOTEBOOK = "jupyterlab.json"
LOGINS = "ssh.json"
_PASSWORD_BYTES = 24
# stands in addresses and headers as it is
TOKEN_FORM = re.compile(r"[A-Za-z0-9_-]{32,}")
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


class StoreError(Exception):
    """The folder cannot be used; the message says what to do."""


@dataclass(frozen=True)
class FleetSecrets:
    """Keys of one fleet.

    :param key: signs every message between clients, controller and engines.
    :param curve_public: the controller's CURVE public key, Z85.
    :param curve_secret: the controller's CURVE secret key, Z85.
    """

    key: str
    curve_public: str
    curve_secret: str


@dataclass(frozen=True)
class FleetState:
    """What is remembered of a fleet from run to run.

    :param deployed: whether a deployment with the folder's keys has begun.
    :param slots: engine ids by host, in the order of its slots.
    :param addresses: where connections to the database come from, by host.
    :param trust: what hosts that log in to each other by ssh know of each other, by host.
    """

    deployed: bool = False
    slots: dict[str, list[int]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    trust: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def new_secrets() -> FleetSecrets:
    """Make keys: 32 random bytes for messages, an X25519 pair for CURVE."""
    pair = X25519PrivateKey.generate()
    public = pair.public_key().public_bytes_raw()
    return FleetSecrets(secrets.token_hex(32), z85(public), z85(pair.private_bytes_raw()))


def z85(data: bytes) -> str:
    """Encode as ZeroMQ's RFC 32 does: base 85 with its own alphabet."""
    return base64.b85encode(data).decode().translate(str.maketrans(_B85, Z85))


def write_private(path: Path, text: str) -> None:
    """Put a file in place, whole or not at all, for nobody else to read.

    :raises OSError: when it cannot be written.
    """
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
    except OSError:
        os.unlink(new)
        raise


class SecretStore:
    """The folder of one fleet.

    :param folder: where it is; made when the first key is.
    :param read_text: how a file is read, so that Ansible may decrypt it.
    """

    def __init__(self, folder: Path, read_text: Callable[[str], str]) -> None:
        self.folder = folder
        self.read_text = read_text

    def secrets(self) -> FleetSecrets | None:
        """The keys; None when there are none yet.

        :raises StoreError: when the file is not what it should be, or others may read it.
        """
        content = self.read_private(SECRETS)
        if content is None:
            return None
        try:
            return FleetSecrets(**{key: str(content[key]) for key in ("key", "curve_public", "curve_secret")})
        except KeyError as error:
            raise StoreError(f"{self.folder / SECRETS}: expected the key {error}, which is missing") from error

    def create_secrets(self) -> FleetSecrets:
        """Make keys and keep them; keys that are there already are returned as they are."""
        found = self.secrets()
        if found:
            return found
        made = new_secrets()
        self.write(SECRETS, asdict(made))
        return made

    def passwords(self) -> dict[str, str]:
        """Passwords that were made, by account; none when there are none yet.

        :raises StoreError: when the file is not what it should be, or others may read it.
        """
        content = self.read_private(PASSWORDS) or {}
        for user, password in content.items():
            if not isinstance(password, str) or not password:
                raise StoreError(f"{self.folder / PASSWORDS}: expected a password for {user}, got something else")
        return dict(content)

    def create_passwords(self, users: Iterable[str], given: Mapping[str, str], dry: bool = False) -> dict[str, str]:
        """A password for each account: the one that is given, else the one that is kept, else a new one, which is kept.

        :param given: passwords that the operator set; they are not kept here.
        :param dry: keep nothing; new ones are good for nothing but a look.
        :raises StoreError: when the file cannot be read, or has to be changed and cannot be.
        """
        kept = self.passwords()
        wanted = list(users)
        made = {user: secrets.token_urlsafe(_PASSWORD_BYTES) for user in wanted if user not in given and user not in kept}
        if made:
            self.write(PASSWORDS, kept | made, dry)
        known = kept | made | dict(given)
        return {user: known[user] for user in wanted}

    def token(self) -> str:
        """What lets one into JupyterLab; empty when there is none yet.

        :raises StoreError: when the file is not what it should be, or others may read it.
        """
        content = self.read_private(NOTEBOOK)
        if content is None:
            return ""
        found = content.get("token")
        if not isinstance(found, str) or not TOKEN_FORM.fullmatch(found):
            raise StoreError(f"{self.folder / NOTEBOOK}: expected a token of 32 or more letters and digits, got something else")
        return found

    def create_token(self, dry: bool = False) -> str:
        """Make a token and keep it; one that is there already is returned as it is.

        :param dry: keep nothing.
        """
        found = self.token()
        if found:
            return found
        made = secrets.token_hex(32)
        self.write(NOTEBOOK, {"token": made}, dry)
        return made

    def login_key(self) -> str:
        """The private key by which hosts log in to each other, as OpenSSH writes it; empty when there is none yet.

        :raises StoreError: when the file is not what it should be, or others may read it.
        """
        content = self.read_private(LOGINS)
        if content is None:
            return ""
        found = str(content.get("private"))
        try:
            public_of(found)
        except ValueError as error:
            raise StoreError(f"{self.folder / LOGINS}: expected a private key of OpenSSH's, got something else") from error
        return found

    def create_login_key(self, dry: bool = False) -> str:
        """Make a key for logins and keep it; one that is there already is returned as it is.

        :param dry: keep nothing.
        """
        found = self.login_key()
        if found:
            return found
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        made = Ed25519PrivateKey.generate().private_bytes(*form).decode()
        self.write(LOGINS, {"private": made}, dry)
        return made

    def authority(self) -> Pair | None:
        """The fleet's certificate authority; None when there is none yet.

        :raises StoreError: when the file is not what it should be, or others may read it.
        """
        content = self.read_private(AUTHORITY)
        if content is None:
            return None
        path = str(self.folder / AUTHORITY)
        found = _pair(content, path)
        try:
            check_authority(found)
        except CertificateProblem as problem:
            raise StoreError(f"{path}: {problem}") from problem
        return found

    def create_authority(self, fleet: str, now: datetime, dry: bool = False) -> Pair:
        """Make an authority for a fleet and keep it; one that is there already is returned as it is.

        :param dry: keep nothing.
        """
        found = self.authority()
        if found:
            return found
        made = new_authority(fleet, now)
        self.keep_authority(made, dry)
        return made

    def keep_authority(self, authority: Pair, dry: bool = False) -> None:
        """Keep an authority instead of the one that is there.

        :param dry: only refuse what would be.
        :raises StoreError: when the file is in a vault, or cannot be written.
        """
        self.write(AUTHORITY, asdict(authority), dry)

    def certificates(self) -> dict[str, Pair]:
        """Keys and certificates that the authority has signed, by name.

        :raises StoreError: when the file is not what it should be, or others may read it.
        """
        content = self.read_private(CERTIFICATES) or {}
        return {str(name): _pair(pair, f"{self.folder / CERTIFICATES}: {name}") for name, pair in content.items()}

    def certificate(self, name: str) -> Pair | None:
        """The key and certificate of a name; None when there are none.

        :raises StoreError: as `certificates` does, and when they are none.
        """
        found = self.certificates().get(name)
        if found:
            try:
                read(found.certificate)
                load_key(found.key)
            except CertificateProblem as problem:
                raise StoreError(f"{self.folder / CERTIFICATES}: {name}: {problem}") from problem
        return found

    def keep_certificate(self, name: str, pair: Pair, dry: bool = False) -> None:
        """Keep a certificate, beside those of other names.

        :param dry: only refuse what would be.
        :raises StoreError: when the file is in a vault, or cannot be written.
        """
        kept = self.certificates() | {name: pair}
        self.write(CERTIFICATES, {each: asdict(kept[each]) for each in kept}, dry)

    def state(self) -> FleetState:
        """What is remembered; nothing when there is nothing."""
        path = self.folder / STATE
        if not path.exists():
            return FleetState()
        content = self._read(path)
        try:
            slots = {str(host): [int(number) for number in ids] for host, ids in content["slots"].items()}
            addresses = {str(host): str(address) for host, address in content.get("addresses", {}).items()}
            trust = {
                str(host): {key: list(map(str, each[key])) for key in ("keys", "from")} for host, each in content.get("trust", {}).items()
            }
            return FleetState(bool(content["deployed"]), slots, addresses, trust)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"{path}: expected a fleet's state, got something else ({error})") from error

    def remember(self, state: FleetState) -> None:
        """Keep a state, if it differs from the one that is kept."""
        if state != self.state():
            self.write(STATE, asdict(state))

    def remove(self, dry: bool) -> bool:
        """Remove the folder, and the one above if that was made for it; returns whether there was any.

        :param dry: only say so.
        """
        if not self.folder.is_dir():
            return False
        if not dry:
            shutil.rmtree(self.folder)
            if self.folder.parent.name == ".ipyfleet" and not any(self.folder.parent.iterdir()):
                self.folder.parent.rmdir()
        return True

    def discard(self, name: str) -> None:
        """Remove a file that is about to be made anew.

        :raises StoreError: when it is in a vault, where the new one would not be.
        """
        self.write(name, {}, dry=True)
        (self.folder / name).unlink(missing_ok=True)

    def read_private(self, name: str) -> Mapping[str, Any] | None:
        """A file's content; None when there is none."""
        path = self.folder / name
        if not path.exists():
            return None
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StoreError(f"{path}: expected mode 0600, got {stat.S_IMODE(path.stat().st_mode):04o}; chmod 600 it")
        return self._read(path)

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            content = json.loads(self.read_text(str(path)))
        except ValueError as error:
            raise StoreError(f"{path}: expected JSON, got something else ({error})") from error
        if not isinstance(content, dict):
            raise StoreError(f"{path}: expected a JSON object, got {type(content).__name__}")
        return content

    def write(self, name: str, content: Mapping[str, Any], dry: bool = False) -> None:
        """Put a file into the folder.

        :param dry: only refuse what would be.
        :raises StoreError: when the file is in a vault, or cannot be written.
        """
        path = self.folder / name
        if _in_vault(path):
            # the new content would not be encrypted
            advice = f"ansible-vault decrypt {path}, run again, and ansible-vault encrypt it again"
            raise StoreError(f"{path}: expected a file that can be changed, got one in a vault; {advice}")
        if dry:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror}); set fleet_secrets_dir") from error


def public_of(private: str) -> str:
    """The public key of a private one, both as OpenSSH writes them.

    :raises ValueError: when it is none.
    """
    public = serialization.load_ssh_private_key(private.encode(), None).public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _in_vault(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(14) == b"$ANSIBLE_VAULT"
    except OSError:
        return False


def _pair(content: object, place: str) -> Pair:
    """A key and its certificate, as they are kept."""
    if isinstance(content, Mapping):
        key, certificate = content.get("key"), content.get("certificate")
        if isinstance(key, str) and isinstance(certificate, str):
            return Pair(key, certificate)
    raise StoreError(f"{place}: expected a key and a certificate, got something else")
