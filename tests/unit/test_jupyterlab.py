"""JupyterLab as an inventory wants it, and the files that it is started with."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_accounts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import notebook
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.places import fill, places
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import PortPlan
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore, StoreError
from conftest import rendered
from jupyter_client.manager import KernelManager
from traitlets.config import Config

GROUPS = {"ipp_controller": ["head"], "ipp_engine": ["n1", "n2"], "jupyterlab": ["head"]}
PLAN = PortPlan(12300)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vdCBhIGtleSBvZiBhbnlib2R5IGF0IGFsbCE ann@laptop"
DATABASE = {"host": "n1", "location": "n1", "hostaddr": "", "port": 5432, "listen": ["*"]}
USERS = {"service": "ipyfleet-lab", "lab": "ipylab-lab", "tunnel": "ipytunnel-lab", "door": "ipyengines-lab"}


def problems(groups: dict[str, list[str]] = GROUPS, scope: str = "system", **variables: Any) -> list[str]:
    """What is wrong with these variables of JupyterLab's host, without their prefix."""
    mine = {"fleet_name": "lab", "fleet_scope": scope} | {f"jupyterlab_{name}": value for name, value in variables.items()}
    return list(notebook.problems(groups, dict.fromkeys(("head", "n1", "n2"), mine)))


def described(scope: str = "system", database: dict[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
    fleet = {
        "name": "lab",
        "scope": scope,
        "controller": "head",
        "location": "10.0.0.5",
        "bind": "0.0.0.0",
        "ports": PLAN.to_dict(),
        "postgresql": database,
        "hosts": {"head": {"roles": ["ipp_controller", "jupyterlab"]}, "n1": {"roles": ["ipp_engine"]}, "n2": {"roles": ["ipp_engine"]}},
    }
    found = notebook.describe(GROUPS, {"head": variables}, fleet, PLAN)
    assert found is not None
    return found


# -- what an inventory says


def test_a_host_is_enough() -> None:
    assert problems() == []
    found = described()
    assert (found["host"], found["port"], found["user"], found["cluster_tab"]) == ("head", 12391, "ipylab-lab", False)
    assert found["tunnel_user"] == ""
    assert found["targets"] == {"jupyterlab": ["127.0.0.1", 12391], "controller": ["127.0.0.1", PLAN.client]}


def test_a_fleet_without_jupyterlab_has_none() -> None:
    groups = GROUPS | {"jupyterlab": []}
    assert problems(groups, port=1) == []
    assert notebook.describe(groups, {}, {}, PLAN) is None
    assert notebook.packages(groups, "head", {"head": {}}, {"jupyterlab_python_packages": ["jupyterlab"]}) == []


def test_what_is_said_of_it_counts() -> None:
    found = described(
        database=DATABASE,
        jupyterlab_port=8888,
        jupyterlab_user="lab",
        jupyterlab_cluster_tab=True,
        jupyterlab_tunnel_keys=[KEY],
    )
    assert (found["port"], found["user"], found["cluster_tab"]) == (8888, "lab", True)
    assert (found["tunnel_user"], found["targets"]["jupyterlab"]) == ("ipytunnel-lab", ["127.0.0.1", 8888])
    assert found["targets"]["postgresql"] == ["n1", 5432]
    assert described(jupyterlab_tunnel_keys=[KEY], jupyterlab_tunnel_user="guest")["tunnel_user"] == "guest"
    # without a key nobody could be that account
    assert described(jupyterlab_tunnel_user="guest")["tunnel_user"] == ""


def test_in_scope_user_it_is_nobody_else_s() -> None:
    assert described("user")["user"] == ""


def test_its_packages_are_on_its_host_alone() -> None:
    defaults = {"jupyterlab_python_packages": ["jupyterlab", "matplotlib"]}
    assert notebook.packages(GROUPS, "n1", {"n1": {}}, defaults) == []
    assert notebook.packages(GROUPS, "head", {"head": {}}, defaults) == ["jupyterlab", "matplotlib"]
    mine = {"head": {"jupyterlab_python_packages": ["jupyterlab==4.4.1"]}}
    assert notebook.packages(GROUPS, "head", mine, defaults) == ["jupyterlab==4.4.1"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"port": 80}, "jupyterlab_port: expected a port from 1024 to 65535, got 80"),
        ({"port": 65536}, "jupyterlab_port: expected a port from 1024 to 65535, got 65536"),
        ({"user": "Ann Lee"}, "jupyterlab_user: expected the name of an account, got 'Ann Lee'"),
        ({"tunnel_user": "-x"}, "jupyterlab_tunnel_user: expected the name of an account, got '-x'"),
        ({"memory_max": "8 GB"}, "jupyterlab_memory_max: expected a limit such as 8G, 75% or infinity, got '8 GB'"),
        ({"memory_max": "175%"}, "jupyterlab_memory_max: expected a limit such as 8G, 75% or infinity, got '175%'"),
        ({"cpu_quota": "4"}, "jupyterlab_cpu_quota: expected a share such as 400%, where 100% is one core, got '4'"),
        ({"data_dir": "notebooks"}, "jupyterlab_data_dir: expected an absolute path without blanks, got 'notebooks'"),
        ({"data_dir": "/srv/my notebooks"}, "jupyterlab_data_dir: expected an absolute path without blanks, got '/srv/my notebooks'"),
    ],
)
def test_a_value_that_is_none_is_told_with_what_is_expected(variables: dict[str, Any], expected: str) -> None:
    assert problems(**variables) == [f"head: {expected}"]


@pytest.mark.parametrize(
    "key",
    [
        "ssh-ed25519",
        "AAAAC3NzaC1lZDI1NTE5AAAAIG5vdCBhIGtleSBvZiBhbnlib2R5IGF0IGFsbCE",
        f'command="sh" {KEY}',
        f"{KEY}\n{KEY}",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----",
        7,
    ],
)
def test_a_key_of_the_tunnel_is_a_single_public_one(key: object) -> None:
    (found,) = problems(tunnel_keys=[KEY, key])
    assert found.startswith(
        "head: jupyterlab_tunnel_keys[1]: expected a public key such as ssh-ed25519 AAAA... NAME, without options, got "
    )
    # a private key is not repeated to whoever reads along
    assert "c2VjcmV0" not in found


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com"])
def test_keys_of_every_kind_are_taken_with_or_without_a_name(kind: str) -> None:
    body = KEY.split()[1]
    assert problems(tunnel_keys=[f"{kind} {body}", f"{kind} {body}== Ann Lee, laptop\n"]) == []


def test_there_is_one_host_of_it() -> None:
    assert problems(GROUPS | {"jupyterlab": ["n1", "n2"]}) == ["jupyterlab: expected at most one host in the group, got n1, n2"]


@pytest.mark.parametrize("variables", [{"user": "ann"}, {"memory_max": "2G"}, {"tasks_max": 10}, {"tunnel_keys": [KEY]}])
def test_what_takes_root_is_refused_in_scope_user(variables: dict[str, Any]) -> None:
    (found,) = problems(scope="user", **variables)
    (name,) = variables
    assert found.startswith(f"head: jupyterlab_{name}: expected nothing in scope user, where all is the login user's, got ")
    assert problems(**variables) == []


# -- its token


def store(folder: Path) -> SecretStore:
    return SecretStore(folder, lambda path: Path(path).read_text())


def test_a_token_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert store(folder).token() == ""
    assert len(store(folder).create_token(dry=True)) == 64
    assert not folder.exists()
    made = store(folder).create_token()
    assert re.fullmatch(r"[0-9a-f]{64}", made)
    assert store(folder).create_token() == store(folder).create_token(dry=True) == store(folder).token() == made
    assert store(tmp_path / "others").create_token() != made
    assert stat.S_IMODE((folder / "jupyterlab.json").stat().st_mode) == 0o600


def test_a_token_that_the_operator_sets_is_taken(tmp_path: Path) -> None:
    (tmp_path / "jupyterlab.json").write_text(json.dumps({"token": "x" * 32}))
    (tmp_path / "jupyterlab.json").chmod(0o600)
    assert store(tmp_path).create_token() == "x" * 32


@pytest.mark.parametrize("content", [{}, {"token": ""}, {"token": "short"}, {"token": "x" * 31 + "&"}, {"token": 5}])
def test_a_token_that_is_none_is_refused_and_not_shown(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "jupyterlab.json").write_text(json.dumps(content))
    (tmp_path / "jupyterlab.json").chmod(0o600)
    with pytest.raises(StoreError, match="expected a token of 32 or more letters and digits, got something else"):
        store(tmp_path).create_token()
    (tmp_path / "jupyterlab.json").chmod(0o644)
    with pytest.raises(StoreError, match="expected mode 0600, got 0644"):
        store(tmp_path).token()


# -- where things are


def test_its_folders_are_no_other_fleet_s_and_not_the_engines() -> None:
    mine = places("system", "lab", USERS, "")
    # a name that a fleet may have
    other = places("system", "lab-jupyterlab", USERS, "")
    assert {mine[word] for word in ("lab", "lab_run", "tunnel")} & set(other.values()) == set()
    assert (mine["lab"], mine["lab_user"], mine["tunnel_user"]) == ("/var/lib/ipyfleet/lab.jupyterlab", "ipylab-lab", "ipytunnel-lab")
    assert not mine["lab"].startswith(mine["state"] + "/")
    assert mine["service"] != mine["lab_user"]


def test_in_scope_user_all_is_in_the_user_s_folder() -> None:
    mine = places("user", "lab", USERS, "/home/ann")
    assert {mine[word].startswith("/home/ann/.local/share/ipyfleet/lab/") for word in ("lab", "lab_run", "tunnel")} == {True}
    assert mine["lab_user"] == mine["service"] == "root"
    assert fill({"path": ["{lab}/{item}"]}, mine) == {"path": ["/home/ann/.local/share/ipyfleet/lab/jupyterlab/{item}"]}


# -- its accounts


def accounts(account: dict[str, Any], check: bool = False) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """The commands that make an account, and what is noted of it."""
    commands: list[list[str]] = []

    def run_command(command: list[str]) -> tuple[int, str, str]:
        commands.append(command)
        return 0, "", ""

    module = SimpleNamespace(check_mode=check, run_command=run_command, get_bin_path=lambda name, **_: f"/usr/sbin/{name}")
    return commands, fleet_accounts.create(module, account)


def test_an_account_can_log_in_only_where_it_has_keys() -> None:
    account = {"name": "nobody-of-that-name", "home": "/var/lib/x", "comment": "Tunnels"}
    ((command,), changes) = accounts(account)
    assert command[-1] == "nobody-of-that-name"
    assert command[command.index("--comment") + 1] == "Tunnels"
    assert command[command.index("--shell") + 1] == "/usr/sbin/nologin"
    assert "--password" not in command
    assert changes == [{"path": "nobody-of-that-name", "what": "create system user"}]
    ((command,), _) = accounts(account | {"keys": True})
    # no password fits, and sshd does not take it for a locked one
    assert command[command.index("--password") + 1] == "*"
    assert command[command.index("--shell") + 1] == "/usr/sbin/nologin"
    # only where commands are run by logins is there a shell to run them
    ((command,), _) = accounts(account | {"commands": True})
    assert command[command.index("--shell") + 1] == "/bin/sh"


def test_an_account_that_is_there_is_left_as_it_is_and_a_look_makes_none() -> None:
    assert accounts({"name": tree.me(), "home": "/x", "comment": ""}) == ([], [])
    commands, changes = accounts({"name": "nobody-of-that-name", "home": "/x", "comment": ""}, check=True)
    assert (commands, [each["what"] for each in changes]) == ([], ["create system user"])


# -- the tunnel's keys


def options_of(line: str) -> tuple[str, str]:
    """What precedes a key, and the key."""
    options, kind, rest = line.partition("ssh-ed25519 ")
    return options.strip(), kind + rest


def test_who_has_a_key_of_the_tunnel_gets_nothing_but_forwarding() -> None:
    lab = described(database=DATABASE, jupyterlab_tunnel_keys=[KEY, KEY])
    text = rendered("jupyterlab/authorized_keys.j2", fleet={"jupyterlab": lab}, jupyterlab_tunnel_keys=[f"{KEY}\n", KEY])
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert [options_of(line)[1] for line in lines] == [KEY, KEY]
    for line in lines:
        options = options_of(line)[0].split(",")
        # sftp within sshd gives way to a command that is forced, and to nothing else here
        assert options[:4] == ["restrict", "port-forwarding", 'command="/bin/false"', 'permitlisten="localhost:1"']
        ports = [12391, *PLAN.client.values()]
        assert sorted(options[4:]) == sorted({*(f'permitopen="127.0.0.1:{port}"' for port in ports), 'permitopen="n1:5432"'})


def test_addresses_with_colons_are_written_as_sshd_reads_them() -> None:
    lab = {"targets": {"controller": ["fd00::5", {"registration": 12300}]}}
    text = rendered("jupyterlab/authorized_keys.j2", fleet={"jupyterlab": lab}, jupyterlab_tunnel_keys=[KEY])
    assert f',permitopen="[fd00::5]:12300" {KEY}\n' in text


# -- its configuration


def configured(monkeypatch: pytest.MonkeyPatch, folder: Path, runtime: str = "/run/x", scope: str = "system", **variables: Any) -> Config:
    """What the server's configuration sets, when it is run as Jupyter does."""
    (folder / "token").write_text("abc\n")
    lab = {"port": 12391}
    known = {"fleet": {"name": "lab", "scope": scope, "jupyterlab": lab}, "places": {"lab": str(folder), "env": "/opt/lab/env"}}
    text = rendered(
        "jupyterlab/jupyter_server_config.py.j2", **known, **{"jupyterlab_data_dir": "", "jupyterlab_cluster_tab": False} | variables
    )
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", runtime)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    found = Config()
    exec(compile(text, "jupyter_server_config.py", "exec"), {"get_config": lambda: found})
    return found


def test_it_listens_here_alone_and_on_no_other_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = configured(monkeypatch, tmp_path).ServerApp
    assert (found.ip, found.port, found.port_retries, found.allow_remote_access, found.allow_origin) == ("127.0.0.1", 12391, 0, False, "")
    assert found.root_dir == f"{tmp_path}/notebooks"
    assert "allow_root" not in found
    assert configured(monkeypatch, tmp_path, scope="user").ServerApp.allow_root is True
    assert configured(monkeypatch, tmp_path, jupyterlab_data_dir="/srv/n").ServerApp.root_dir == "/srv/n"


def test_a_terminal_has_the_notebook_s_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ["PATH"]
    configured(monkeypatch, tmp_path)
    assert os.environ["PATH"] == f"/opt/lab/env/bin:{before}"


def test_its_token_is_read_and_not_in_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = configured(monkeypatch, tmp_path).IdentityProvider
    assert (found.token, found.cookie_name) == ("abc", "ipyfleet-lab")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_clusters_tab_is_there_if_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    found = configured(monkeypatch, tmp_path, jupyterlab_cluster_tab=wanted)
    assert found.ServerApp.jpserver_extensions == {"ipyparallel": wanted}
    page = json.loads(rendered("jupyterlab/page_config.json.j2", jupyterlab_cluster_tab=wanted))
    assert page["disabledExtensions"]["ipyparallel-labextension"] is not wanted
    assert page["disabledExtensions"]["@jupyterlab/apputils-extension:announcements"] is True


def sockets_of(runtime: str) -> list[str]:
    """The sockets of a kernel whose connection file is in this folder."""
    manager = KernelManager(transport="ipc", connection_file=f"{runtime}/kernel-{uuid4()}.json")
    manager.write_connection_file()
    try:
        known = manager.get_connection_info()
        return [f"{known['ip']}-{known[f'{each}_port']}" for each in ("shell", "iopub", "stdin", "hb", "control")]
    finally:
        manager.cleanup_connection_file()


def test_kernels_listen_on_sockets_as_long_as_their_names_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="ipf") as short:
        fitting = Path(short) / ("x" * (55 - len(short)))
        fitting.mkdir()
        assert configured(monkeypatch, tmp_path, str(fitting)).KernelManager.transport == "ipc"
        for path in sockets_of(str(fitting)):
            with socket.socket(socket.AF_UNIX) as kernel:
                kernel.bind(path)
        much = Path(short) / ("x" * (57 - len(short)))
        much.mkdir()
        assert configured(monkeypatch, tmp_path, str(much)).KernelManager.transport == "tcp"
    # what a fleet of scope system has, whatever its name is
    assert configured(monkeypatch, tmp_path, places("system", "a" * 20, USERS, "")["lab_run"]).KernelManager.transport == "ipc"
