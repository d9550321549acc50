"""How a server really is, told from its views, its sockets and its certificate; and the files on the way there and back."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_state as state
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_files import Files
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_server import Layout, includes
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import authority

OURS = "/etc/postgresql/15/main/conf.d/50-ipyfleet.conf"
AUTO = "/var/lib/postgresql/15/main/postgresql.auto.conf"


def row(name: str | None, setting: str, file: str | None = OURS, **more: Any) -> dict[str, Any]:
    """A row of pg_file_settings."""
    usual = {"sourceline": 3, "applied": True, "error": None, "pending": False}
    return {"name": name, "setting": setting, "sourcefile": file, **usual, **more}


# -- settings and rules


def test_settings_that_the_server_took_are_no_fault() -> None:
    assert list(state.file_faults([row("work_mem", "4MB")], OURS)) == []


def test_a_setting_that_waits_for_a_restart_is_no_fault() -> None:
    waiting = row("port", "5433", applied=False, error="setting could not be applied", pending=True)
    assert list(state.file_faults([waiting], OURS)) == []
    # nor is one that is in no file any more
    gone = row(None, "", None, applied=False, error='parameter "port" cannot be changed without restarting the server')
    assert list(state.file_faults([gone], OURS)) == []


def test_a_setting_that_was_refused_is_one() -> None:
    bad = row("work_mem", "x", applied=False, error="setting could not be applied")
    assert list(state.file_faults([bad], OURS)) == [f"{OURS} line 3: work_mem: setting could not be applied"]


def test_who_overrules_a_setting_is_named() -> None:
    rows = [row("work_mem", "4MB", applied=False), row("work_mem", "9MB", AUTO)]
    (line,) = state.file_faults(rows, OURS)
    assert line == f"work_mem: expected 4MB, got 9MB from {AUTO} line 3; ALTER SYSTEM RESET work_mem takes it back"


def test_who_overrules_a_secret_is_named_without_it() -> None:
    rows = [row("primary_conninfo", "password=a", applied=False), row("primary_conninfo", "password=b", AUTO)]
    (line,) = state.file_faults(rows, OURS)
    assert "password" not in line


def test_rules_that_were_refused_and_none_at_all() -> None:
    assert list(state.rule_faults([{"line": 1, "error": None}])) == []
    assert list(state.rule_faults([{"line": 7, "error": "invalid method"}])) == ["pg_hba.conf line 7: invalid method"]
    assert list(state.rule_faults([])) == ["pg_hba.conf: expected rules, got none"]


def test_an_operators_own_settings_wait_for_a_restart_of_his() -> None:
    rows = [row("port", "5433"), row("max_connections", "100", "/etc/postgresql/15/main/postgresql.conf"), row(None, "", None)]
    assert state.theirs(rows, {"port"}) == {"max_connections"}
    # it was the fleet's when the server started
    assert state.theirs(rows, {"port", "max_connections"}) == set()


def test_settings_that_change_between_two_texts() -> None:
    assert state.changed_settings("a = 1\nb = 2\n", "a = 1\nb = 3\nc = 4\n") == {"b", "c"}


@pytest.mark.parametrize(
    ("disturbed", "text"),
    [
        (state.Disturbed([], 2), "clients (2 connected now)"),
        (state.Disturbed(["app", "lab"], 0), "clients of the databases app, lab (0 connected now)"),
    ],
)
def test_who_a_restart_would_disturb(disturbed: state.Disturbed, text: str) -> None:
    assert str(disturbed) == text


# -- sockets

# what is between the state of a socket and its inode in /proc/net/tcp
REST = "00000000:00000000 00:00000000 00000000 0 0"


def test_addresses_of_listening_sockets(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue\n"
    four = tmp_path / "tcp"
    four.write_text(
        head
        + f"   0: 0100007F:1538 00000000:0000 0A {REST} 11\n"
        + f"   1: 0100007F:1538 0100007F:9999 01 {REST} 12\n"
        + f"   2: 0200000A:0016 00000000:0000 0A {REST} 13\n"
        + f"   3: 0200000A:1538 00000000:0000 0A {REST} 14\n"
    )
    six = tmp_path / "tcp6"
    six.write_text(head + f"   0: 00000000000000000000000001000000:1538 00000000000000000000000000000000:0000 0A {REST} 15\n")
    # the socket 14 is another program's, such as a pool of connections
    assert state.listening(5432, {"11", "12", "13", "15"}, [str(four), str(six)]) == {"127.0.0.1", "::1"}


def test_a_real_socket_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = state.sockets_of(os.getpid(), pwd.getpwuid(os.getuid()).pw_name)
        assert state.listening(server.getsockname()[1], mine) == {"127.0.0.1"}
        assert state.listening(server.getsockname()[1], {"1"}) == set()
    assert state.sockets_of(999999999, pwd.getpwuid(os.getuid()).pw_name) is None


@pytest.mark.parametrize(
    ("wanted", "there", "missing"),
    [
        (["*"], {"0.0.0.0", "::"}, []),
        (["*"], {"127.0.0.1"}, ["*"]),
        (["localhost"], {"127.0.0.1"}, []),
        (["localhost", "10.0.0.7"], {"127.0.0.1", "::1"}, ["10.0.0.7"]),
        (["10.0.0.7"], {"0.0.0.0"}, []),
        ([], set(), []),
    ],
)
def test_addresses_on_which_nothing_listens(wanted: list[str], there: set[str], missing: list[str]) -> None:
    assert state.unheard(wanted, there) == missing


@pytest.mark.parametrize(
    ("there", "address"),
    [({"0.0.0.0", "::"}, "127.0.0.1"), ({"::1", "127.0.0.1"}, "127.0.0.1"), ({"10.0.0.7"}, "10.0.0.7"), ({"::"}, "::1"), (set(), "")],
)
def test_where_a_server_is_reached_from_its_own_host(there: set[str], address: str) -> None:
    assert state.reachable(there) == address


def test_addresses_that_this_host_has_not() -> None:
    assert state.absent(["*", "0.0.0.0", "127.0.0.1", "localhost"]) == []
    # set aside for documentation
    assert state.absent(["127.0.0.1", "192.0.2.1"]) == ["postgresql_listen_addresses: expected addresses of this host, got 192.0.2.1"]


# -- the certificate


def test_the_certificate_that_a_server_shows_is_the_one_of_its_file(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pair = authority.issue(authority.new_authority("lab", now), authority.request("server", "db", ["db"], 30, 10), now)
    pem = tmp_path / "server.pem"
    pem.write_text(pair.key + pair.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            assert client.recv(8) == state.SSL_REQUEST
            client.sendall(b"S")
            with context.wrap_socket(client, server_side=True) as secured, contextlib.suppress(OSError):
                secured.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        shown = state.served_certificate("127.0.0.1", server.getsockname()[1])
        thread.join()
    assert shown
    assert shown == state.first_certificate(pem.read_text())


def test_a_server_without_tls_shows_no_certificate() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            client, _ = server.accept()
            assert client.recv(8) == state.SSL_REQUEST
            client.sendall(b"N")
            client.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        assert state.served_certificate("127.0.0.1", server.getsockname()[1]) == b""
        thread.join()


def test_nobody_shows_no_certificate_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert state.served_certificate("127.0.0.1", port) == b""
    assert state.first_certificate("no certificate") == b""


# -- files


@pytest.fixture
def where(tmp_path: Path) -> Layout:
    """The folders of a cluster of the user who runs the tests."""
    config = tmp_path / "config"
    (config / "conf.d").mkdir(parents=True)
    (config / "postgresql.conf").write_text("port = 5432\n")
    (config / "pg_hba.conf").write_text("local all all peer\n")
    name = pwd.getpwuid(os.getuid()).pw_name
    return Layout("15", "main", "/usr/bin", str(config), str(tmp_path / "data"), "postgresql@15-main.service", name)


def files(where: Layout, check: bool = False) -> Files:
    with patch_module_args({}):
        module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.check_mode = check
    return Files(module, where)


NEW = {"conf": "work_mem = 4MB\n", "hba": "# Belongs to fleet lab.\nlocal all all peer\n", "pem": "secret\n", "ca": "ca\n"}


def tree(where: Layout) -> dict[str, str]:
    return {str(path.relative_to(where.config)): path.read_text() for path in Path(where.config).rglob("*") if path.is_file()}


def test_files_are_put_in_place_once(where: Layout) -> None:
    before = tree(where)
    mine = files(where)
    dry = files(where, check=True)
    assert dry.put(dry.present(**NEW))
    assert tree(where) == before
    changes = mine.put(mine.present(**NEW))
    assert mine.put(mine.present(**NEW)) == []
    assert tree(where)["conf.d/50-ipyfleet.conf"] == NEW["conf"]
    assert tree(where)["pg_hba.conf.before-ipyfleet"] == "local all all peer\n"
    assert stat.S_IMODE(Path(where.pem).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(where.drop_in).stat().st_mode) == 0o640
    assert "secret\n" not in str(changes)


def test_a_configuration_without_a_folder_for_others_gets_one(where: Layout) -> None:
    mine = files(where)
    mine.put(mine.present(**NEW))
    assert tree(where)["postgresql.conf"].startswith("port = 5432\n")
    assert includes(tree(where)["postgresql.conf"], "conf.d")


@pytest.mark.parametrize(
    "line",
    [
        "primary_conninfo = 'host=a password=tellnobody'",
        "  Primary_Conninfo 'host=a password=tellnobody'  # why",
        "#primary_conninfo='password=tellnobody'",
        "ssl_passphrase_command = 'echo tellnobody'",
        "host all all all ldap ldapserver=a ldapbindpasswd=tellnobody",
        'host all all all ldap "ldapbindpasswd=a tellnobody"',
        'host all all all ldap ldapbindpasswd="a ""b"" tellnobody" ldapserver=a',
        'host all all all radius radiussecrets="a,tellnobody"',
        "host all all all radius radiussecrets=a\\\ntellnobody",
    ],
)
def test_passwords_for_other_servers_are_not_shown(where: Layout, line: str) -> None:
    new = NEW | {"conf": f"work_mem = 4MB\n{line}\nport = 1\n"}
    Path(where.hba).write_text(f"local all all peer\n{line}\n")
    mine = files(where)
    changes = mine.put(mine.present(**new))
    assert "tellnobody" not in str(changes)
    (shown,) = (each["diff"]["after"] for each in changes if each["path"] == where.drop_in)
    assert shown.startswith("work_mem = 4MB\n")
    assert shown.endswith("***\nport = 1\n")
    assert tree(where)["conf.d/50-ipyfleet.conf"] == new["conf"]


def test_the_files_that_last_worked_come_back(where: Layout) -> None:
    mine = files(where)
    mine.keep(only_first=True)
    mine.put(mine.present(**NEW))
    # whoever has not seen the new ones work keeps the old ones
    mine.keep(only_first=True)
    assert mine.put_back()
    assert tree(where)["pg_hba.conf"] == "local all all peer\n"
    assert "conf.d/50-ipyfleet.conf" not in tree(where)
    assert not mine.put_back()
    mine.put(mine.present(**NEW))
    mine.keep()
    mine.put(mine.present(**NEW | {"conf": "work_mem = 5MB\n", "pem": "other\n"}))
    assert mine.put_back()
    assert tree(where)["conf.d/50-ipyfleet.conf"] == NEW["conf"]
    assert tree(where)["ipyfleet/server.pem"] == "secret\n"


def test_removal_leaves_what_was_there_before(where: Layout) -> None:
    before = tree(where) | {"postgresql.conf": "port = 5432\ninclude_dir = 'conf.d'\n"}
    Path(where.config, "postgresql.conf").write_text(before["postgresql.conf"])
    mine = files(where)
    mine.keep()
    mine.put(mine.present(**NEW))
    mine.put(mine.absent())
    assert tree(where) == before
    assert mine.put(mine.absent()) == []
