# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where things of a fleet are on a host, by the words that the roles' descriptions use for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def places(scope: str, fleet: str, users: Mapping[str, str], home: str) -> dict[str, str]:
    """Folders and accounts by name; in a role's description, ``{name}`` stands for each of them.

    :param users: the accounts of scope ``system``: ``service``, ``lab``, ``tunnel`` and ``door``.
    :param home: the login user's home, for scope ``user``.
    """
    own = f"{home}/.local/share/ipyfleet/{fleet}"
    found = {
        "system": {
            "root": f"/opt/ipyfleet/{fleet}",
            "etc": f"/etc/ipyfleet/{fleet}",
            "state": f"/var/lib/ipyfleet/{fleet}",
            "run": f"/run/ipyfleet/{fleet}",
            # a dot is in no fleet's name: these are no other fleet's folders
            "lab": f"/var/lib/ipyfleet/{fleet}.jupyterlab",
            "lab_run": f"/run/ipyfleet/{fleet}.jupyterlab",
            "tunnel": f"/var/lib/ipyfleet/{fleet}.tunnel",
            "door": f"/var/lib/ipyfleet/{fleet}.engines",
            "service": users["service"],
            "group": users["service"],
            "lab_user": users["lab"],
            "lab_group": users["lab"],
            "tunnel_user": users["tunnel"],
            "door_user": users["door"],
        },
        "user": {
            "root": own,
            "etc": f"{own}/etc",
            "state": f"{own}/var",
            "run": f"{own}/run",
            "lab": f"{own}/jupyterlab",
            "lab_run": f"{own}/run",
            "tunnel": f"{own}/tunnel",
            "door": f"{own}/engines",
            "service": "root",
            "group": "",
            "lab_user": "root",
            "lab_group": "",
            "tunnel_user": "",
            "door_user": "",
        },
    }[scope]
    ipython = f"{found['state']}/ipython"
    return found | {
        "fleet": fleet,
        "env": f"{found['root']}/env",
        "stamp": f"{found['root']}/env/ipyfleet.json",
        "lib": f"{found['root']}/lib",
        "work": f"{found['state']}/work",
        "ipython": ipython,
        "profile": f"{ipython}/profile_{fleet}",
        "security": f"{ipython}/profile_{fleet}/security",
        "units": "/etc/systemd/system",
    }


def fill(value: Any, words: Mapping[str, object]) -> Any:
    """Put words in their ``{places}``, at any depth; what is no known word stays."""
    if isinstance(value, Mapping):
        return {key: fill(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [fill(each, words) for each in value]
    if isinstance(value, str) and "{" in value:
        for word, meaning in words.items():
            value = value.replace(f"{{{word}}}", str(meaning))
    return value
