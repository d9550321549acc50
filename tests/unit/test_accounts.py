"""Accounts of a fleet: which ones are refused, by the inventory and on a host, and which are taken away with it."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_accounts as accounts
from ansible_collections.ipyfleet.cluster.plugins.modules.fleet_host import Host
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import notebook
from conftest import ROOT

GROUPS = {"jupyterlab": ["head"]}
KEY = f"ssh-ed25519 {'A' * 68} ann"
ME, OTHER = os.geteuid() or 4711, 4712


def entry(name: str, uid: int, home: str = "/nowhere", shell: str = "/usr/sbin/nologin") -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", home, shell))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[pwd.struct_passwd]:
    """The accounts of the host; tests add theirs."""
    found = [entry("root", 0, "/root", "/bin/bash"), entry("toor", 0, "/root", "/bin/sh")]

    def one(**wanted: Any) -> pwd.struct_passwd:
        (field, value), *_ = wanted.items()
        for each in found:
            if getattr(each, field) == value:
                return each
        raise KeyError(value)

    monkeypatch.setattr(pwd, "getpwnam", lambda name: one(pw_name=name))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: one(pw_uid=uid))
    monkeypatch.setattr(pwd, "getpwall", lambda: found)
    return found


# -- by the inventory


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"jupyterlab_user": "root"}, "head: jupyterlab_user: expected an account without root's rights, got root"),
        (
            {"jupyterlab_user": "ipyfleet-lab"},
            "head: jupyterlab_user: expected an account of its own, got ipyfleet-lab, which ipp_node_user is as well",
        ),
        (
            {"jupyterlab_user": "ann", "ipp_node_user": "ann"},
            "head: jupyterlab_user: expected an account of its own, got ann, which ipp_node_user is as well",
        ),
        (
            {"jupyterlab_tunnel_user": "ipylab-lab", "jupyterlab_tunnel_keys": [KEY]},
            "head: jupyterlab_tunnel_user: expected an account of its own, got ipylab-lab, which jupyterlab_user is as well",
        ),
        (
            {"jupyterlab_tunnel_user": "root", "jupyterlab_tunnel_keys": [KEY]},
            "head: jupyterlab_tunnel_user: expected an account without root's rights, got root",
        ),
        ({"jupyterlab_tasks_max": 0}, "head: jupyterlab_tasks_max: expected a number from 1 on, got 0"),
    ],
)
def test_what_an_inventory_must_not_say_is_told_in_a_line(variables: dict[str, Any], expected: str) -> None:
    assert list(notebook.problems(GROUPS, {"head": {"fleet_name": "lab", **variables}})) == [expected]


@pytest.mark.parametrize("variables", [{}, {"jupyterlab_user": "ann", "jupyterlab_tunnel_keys": [KEY]}, {"fleet_scope": "user"}])
def test_accounts_of_their_own_are_taken(variables: dict[str, Any]) -> None:
    assert list(notebook.problems(GROUPS, {"head": {"fleet_name": "lab", **variables}})) == []


# -- on the host


def lab(name: str, home: Path | str = "/none", **more: Any) -> dict[str, Any]:
    return {"name": name, "home": str(home), "set_by": "jupyterlab_user", **more}


@pytest.mark.usefixtures("known")
def test_an_account_with_root_s_rights_is_refused_by_whatever_name() -> None:
    assert list(accounts.problems([lab("toor")])) == ["jupyterlab_user: expected an account without root's rights, got toor"]


@pytest.mark.usefixtures("known")
def test_one_account_for_two_is_refused() -> None:
    pair = [lab("x", set_by="ipp_node_user"), lab("x")]
    assert list(accounts.problems(pair)) == ["jupyterlab_user: expected an account of its own, got x, which ipp_node_user is as well"]


@pytest.mark.parametrize(
    ("home", "shell", "refused"),
    [
        ("/var/tunnel", "/usr/sbin/nologin", False),
        ("/var/tunnel", "/bin/false", False),
        ("/var/tunnel", "/bin/sh", True),
        ("/var/tunnel", "", True),
        ("/home/ann", "/usr/sbin/nologin", True),
    ],
)
def test_keys_are_given_to_no_account_that_can_do_more(known: list[pwd.struct_passwd], home: str, shell: str, refused: bool) -> None:
    known.append(entry("ann", 4713, home, shell))
    said = list(accounts.problems([lab("ann", "/var/tunnel", keys=True)]))
    expected = "jupyterlab_user: expected an account without a shell, with the home folder /var/tunnel, got ann, which has the shell "
    assert len(said) == int(refused)
    assert all(each.startswith(expected) and each.endswith(f"home folder {home}; name another one") for each in said)


def test_another_account_than_the_one_whose_files_are_there_is_refused(
    known: list[pwd.struct_passwd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "lstat", lambda _: SimpleNamespace(st_uid=ME))
    assert list(accounts.problems([lab("new", tmp_path)])) == []
    known += [entry("old", ME), entry("other", OTHER)]
    for name in ("new", "other"):
        assert list(accounts.problems([lab(name, tmp_path)])) == [
            f"jupyterlab_user: expected old, whose files are in {tmp_path}, got {name}; take the fleet down from this host first,"
            " and move away what that keeps"
        ]
    assert list(accounts.problems([lab("old", tmp_path)])) == []


def test_an_account_is_refused_that_could_not_read_the_notebooks_that_were_kept(
    known: list[pwd.struct_passwd], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lstat(path: str) -> SimpleNamespace:
        if path != "/notebooks":
            raise FileNotFoundError(path)
        return SimpleNamespace(st_uid=ME)

    monkeypatch.setattr(os, "lstat", lstat)
    known.append(entry("old", ME))
    (said,) = accounts.problems([lab("new", data="/notebooks")])
    assert said.startswith("jupyterlab_user: expected old, whose files are in /notebooks, got new; take the fleet down")
    assert list(accounts.problems([lab("old", data="/notebooks")])) == []


def test_the_accounts_of_a_fleet_are_known_by_where_they_live(known: list[pwd.struct_passwd]) -> None:
    known += [entry("ipytunnel-lab", 1, "/x/lab.tunnel"), entry("ann", 2, "/home/ann"), entry("ipytunnel-lab2", 3, "/x/lab2.tunnel")]
    assert accounts.living_in(["/x/lab.tunnel", "/x/lab"]) == ["ipytunnel-lab"]


def test_a_process_of_an_account_is_found_until_it_has_ended() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in accounts.processes_of(os.geteuid())
        child.kill()
        # it is left for its parent to ask for
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid not in accounts.processes_of(os.geteuid())


# -- where JupyterLab was, and is not any more


def test_old_files_are_removed_as_who_has_their_folder(known: list[pwd.struct_passwd], monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"/v/lab": 4713, "/v/lab.jupyterlab/home": 4714, "/r/lab.jupyterlab": 4714}
    known += [entry("engines", 4713), entry("notebooks", 4714), entry("me", os.geteuid())]
    monkeypatch.setattr(os, "lstat", lambda path: SimpleNamespace(st_uid=owners[path]))
    host: Any = SimpleNamespace(paths={"state": "/v/lab", "lab": "/v/lab.jupyterlab", "lab_run": "/r/lab.jupyterlab"})
    for path, owner in {
        "/v/lab/ipython/x": "engines",
        "/v/lab.jupyterlab/home/pgpass": "notebooks",
        "/r/lab.jupyterlab/jupyterlab.json": "notebooks",
        "/v/lab.jupyterlab/token": pwd.getpwuid(os.geteuid()).pw_name,
    }.items():
        assert Host.owner_of(host, path) == owner


@pytest.mark.parametrize(("wanted", "removed"), [([], ["old"]), (["old"], []), (["new"], ["old"])])
def test_an_account_for_tunnels_that_is_not_wanted_goes_at_once(
    known: list[pwd.struct_passwd], monkeypatch: pytest.MonkeyPatch, wanted: list[str], removed: list[str]
) -> None:
    known += [entry("old", 1, "/v/lab.tunnel"), entry("ann", 2, "/home/ann")]
    monkeypatch.setattr(accounts, "remove", lambda _, name: [name])
    params = {"accounts": [{"name": name} for name in wanted]}
    host: Any = SimpleNamespace(
        paths={"tunnel": "/v/lab.tunnel", "door": "/v/lab.engines"}, params=params, system=True, module=None, changes=[]
    )
    Host.retire_accounts(host)
    assert host.changes == removed


@pytest.mark.parametrize(
    ("roles", "scope", "expected"),
    [
        (["jupyterlab"], "system", []),
        ([], "system", ["{lab_run}/*"]),
        ([], "user", ["{lab_run}/jpserver-*", "{lab_run}/jupyter*", "{lab_run}/kernel-*"]),
    ],
)
def test_what_ran_leaves_nothing_where_it_does_not_run_any_more(roles: list[str], scope: str, expected: list[str]) -> None:
    part = yaml.safe_load((ROOT / "roles/ipp_node/vars/main.yml").read_text())["__ipp_node_part"]
    (entry,) = [each for each in part["prune"] if each["path"].startswith("{lab_run}")]
    templar = Templar(DataLoader(), variables={"host": {"roles": roles}, "fleet": {"scope": scope}})
    items = templar.template(trust_as_template(entry["for_each"]))
    assert [entry["path"].replace("{item}", item) for item in items] == expected


# -- ports


@pytest.mark.parametrize(
    ("port", "holder"),
    [(12391, ""), (12300, "the controller"), (12341, "the controller"), (12350, "the controller"), (5432, "the database")],
)
@pytest.mark.parametrize("host", ["head", "desk"])
def test_a_port_of_something_else_of_the_fleet_is_refused(port: int, holder: str, host: str) -> None:
    fleet = {
        "controller": "head",
        "ports": {"listening": [12300, 12341], "internal": [12350]},
        "postgresql": {"host": "head", "port": 5432},
        "jupyterlab": {"host": host, "port": port},
    }
    line = f"head: jupyterlab_port: expected a port that nothing else of the fleet has on this host, got {port}, which {holder} has"
    assert list(notebook.port_problems(fleet)) == ([line] if holder and host == "head" else [])
