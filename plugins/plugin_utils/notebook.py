# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet's JupyterLab as its inventory wants it: where it is, what it may use, and who gets nothing but a way to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import shown
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import PortPlan
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.way import LOOPBACK, targets_from

ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?|[1-9][0-9]?%|100%|infinity")
CPU = re.compile(r"[1-9][0-9]*%")
KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/]{40,}={0,2}( .*)?"
)
SYSTEM_ONLY = ("user", "memory_max", "cpu_quota", "tasks_max", "tunnel_keys", "tunnel_user")
Variables = Mapping[str, Any]


def problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """What is wrong with what an inventory says of JupyterLab."""
    hosts = groups.get("jupyterlab", ())
    if len(hosts) > 1:
        yield f"jupyterlab: expected at most one host in the group, got {', '.join(hosts)}"
    if len(hosts) != 1:
        return
    (host,) = hosts
    mine = variables[host]
    yield from (f"{host}: {text}" for text in (*_form_problems(mine), *_key_problems(mine)))
    if mine.get("fleet_scope") != "user":
        yield from (f"{host}: {text}" for text in _account_problems(mine))
    if mine.get("fleet_scope") == "user":
        for name in (f"jupyterlab_{each}" for each in SYSTEM_ONLY):
            if mine.get(name):
                yield f"{host}: {name}: expected nothing in scope user, where all is the login user's, got {shown(mine[name])}"


def _form_problems(variables: Variables) -> Iterator[str]:
    port = variables.get("jupyterlab_port")
    if port and not 1024 <= int(port) <= 65535:
        yield f"jupyterlab_port: expected a port from 1024 to 65535, got {port}"
    tasks = variables.get("jupyterlab_tasks_max")
    if tasks is not None and int(tasks) < 1:
        yield f"jupyterlab_tasks_max: expected a number from 1 on, got {tasks}"
    forms = {
        "jupyterlab_user": (ACCOUNT, "the name of an account"),
        "jupyterlab_tunnel_user": (ACCOUNT, "the name of an account"),
        "jupyterlab_memory_max": (MEMORY, "a limit such as 8G, 75% or infinity"),
        "jupyterlab_cpu_quota": (CPU, "a share such as 400%, where 100% is one core"),
        "jupyterlab_data_dir": (re.compile(r"/[^\s'\"%]+"), "an absolute path without blanks"),
    }
    for name, (form, what) in forms.items():
        value = str(variables.get(name) or "")
        # a name that is made of the fleet's is still a template here
        if value and "{{" not in value and not form.fullmatch(value):
            yield f"{name}: expected {what}, got {shown(value)}"


def _account_problems(variables: Variables) -> Iterator[str]:
    """Accounts that would have rights which they must not have: root's, or each other's."""
    name = variables["fleet_name"]
    usual = {"ipp_node_user": f"ipyfleet-{name}", "jupyterlab_user": f"ipylab-{name}"}
    if variables.get("jupyterlab_tunnel_keys"):
        usual["jupyterlab_tunnel_user"] = f"ipytunnel-{name}"
    seen: dict[str, str] = {}
    for variable, default in usual.items():
        account = str(variables.get(variable) or default)
        if account == "root":
            yield f"{variable}: expected an account without root's rights, got root"
        elif account in seen:
            yield f"{variable}: expected an account of its own, got {account}, which {seen[account]} is as well"
        seen.setdefault(account, variable)


def _key_problems(variables: Variables) -> Iterator[str]:
    for number, key in enumerate(variables.get("jupyterlab_tunnel_keys") or []):
        if not KEY.fullmatch(str(key).strip()):
            got = "a private key" if "PRIVATE KEY" in str(key) else shown(key)
            yield f"jupyterlab_tunnel_keys[{number}]: expected a public key such as ssh-ed25519 AAAA... NAME, without options, got {got}"


def port_problems(fleet: Mapping[str, Any]) -> Iterator[str]:
    """A port of JupyterLab's that something else of the fleet has on the same host.

    :param fleet: the fleet as it is wanted.
    """
    notebook, database = fleet["jupyterlab"], fleet["postgresql"]
    if not notebook:
        return
    host, port = notebook["host"], notebook["port"]
    holder = ""
    if host == fleet["controller"] and port in (*fleet["ports"]["listening"], *fleet["ports"]["internal"]):
        holder = "the controller"
    if database and host == database["host"] and port == database["port"]:
        holder = "the database"
    if holder:
        yield f"{host}: jupyterlab_port: expected a port that nothing else of the fleet has on this host, got {port}, which {holder} has"


def packages(groups: Mapping[str, Sequence[str]], host: str, variables: Mapping[str, Variables], defaults: Variables) -> list[str]:
    """Python requirements of a host for JupyterLab; none where it is not.

    :param defaults: the roles' defaults.
    """
    if host not in groups.get("jupyterlab", ()):
        return []
    return [str(each) for each in variables[host].get("jupyterlab_python_packages") or defaults["jupyterlab_python_packages"]]


def describe(
    groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables], fleet: Mapping[str, Any], plan: PortPlan
) -> dict[str, Any] | None:
    """JupyterLab as roles and templates see it, without its token; None when the fleet has none.

    :param fleet: what is known of the rest of the fleet.
    """
    hosts = groups.get("jupyterlab", ())
    if not hosts:
        return None
    (host,) = hosts
    mine = variables[host]
    system = fleet["scope"] == "system"
    port = int(mine.get("jupyterlab_port") or plan.notebook)
    tunnel = str(mine.get("jupyterlab_tunnel_user") or f"ipytunnel-{fleet['name']}") if mine.get("jupyterlab_tunnel_keys") else ""
    return {
        "host": host,
        "port": port,
        "user": str(mine.get("jupyterlab_user") or f"ipylab-{fleet['name']}") if system else "",
        "cluster_tab": bool(mine.get("jupyterlab_cluster_tab")),
        "tunnel_user": tunnel,
        "targets": {"jupyterlab": [LOOPBACK, port], **targets_from(fleet, host)},
    }
