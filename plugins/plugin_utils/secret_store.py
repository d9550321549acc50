# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's keys and its memory, in a folder of the operator's.

``secrets.json`` (may be encrypted with ansible-vault) has the keys; ``state.json`` what is not
secret: which engine id belongs to which slot, and whether the fleet was ever deployed with these
keys. Both are written whole or not at all.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SECRETS, STATE = "secrets.json", "state.json"
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
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
    """

    deployed: bool = False
    slots: dict[str, list[int]] = field(default_factory=dict)


def new_secrets() -> FleetSecrets:
    """Make keys: 32 random bytes for messages, an X25519 pair for CURVE."""
    pair = X25519PrivateKey.generate()
    public = pair.public_key().public_bytes_raw()
    return FleetSecrets(secrets.token_hex(32), z85(public), z85(pair.private_bytes_raw()))


def z85(data: bytes) -> str:
    """Encode as ZeroMQ's RFC 32 does: base 85 with its own alphabet."""
    return base64.b85encode(data).decode().translate(str.maketrans(_B85, _Z85))


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
        path = self.folder / SECRETS
        if not path.exists():
            return None
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise StoreError(f"{path}: expected mode 0600, got {stat.S_IMODE(path.stat().st_mode):04o}; chmod 600 it")
        content = self._read(path)
        try:
            return FleetSecrets(**{key: str(content[key]) for key in ("key", "curve_public", "curve_secret")})
        except KeyError as error:
            raise StoreError(f"{path}: expected the key {error}, which is missing") from error

    def create_secrets(self) -> FleetSecrets:
        """Make keys and keep them; keys that are there already are returned as they are."""
        found = self.secrets()
        if found:
            return found
        made = new_secrets()
        self._write(SECRETS, asdict(made))
        return made

    def state(self) -> FleetState:
        """What is remembered; nothing when there is nothing."""
        path = self.folder / STATE
        if not path.exists():
            return FleetState()
        content = self._read(path)
        try:
            slots = {str(host): [int(number) for number in ids] for host, ids in content["slots"].items()}
            return FleetState(bool(content["deployed"]), slots)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"{path}: expected a fleet's state, got something else ({error})") from error

    def remember(self, state: FleetState) -> None:
        """Keep a state, if it differs from the one that is kept."""
        if state != self.state():
            self._write(STATE, asdict(state))

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

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            content = json.loads(self.read_text(str(path)))
        except ValueError as error:
            raise StoreError(f"{path}: expected JSON, got something else ({error})") from error
        if not isinstance(content, dict):
            raise StoreError(f"{path}: expected a JSON object, got {type(content).__name__}")
        return content

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.folder / name, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot be written ({error.strerror}); set fleet_secrets_dir") from error
