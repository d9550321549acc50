"""PostgreSQL servers of a host: where they are, what their files say, and what speaks against them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_server as server
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_findings import lost_rules, problems
from ansible_collections.ipyfleet.cluster.plugins.modules import fleet_pg_look as look
from conftest import ROOT

OURS = "# Managed\n# Belongs to fleet lab.\n"


def debian(root: Path, version: str = "15", cluster: str = "main", conf: str = "port = 5432\n", drop_in: str = "") -> server.Layout:
    """A cluster of Debian's, as far as files tell of it."""
    config = root / "etc/postgresql" / version / cluster
    (config / "conf.d").mkdir(parents=True)
    (config / "postgresql.conf").write_text(conf)
    programs = root / "usr/lib/postgresql" / version / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    (programs / "postgres").touch()
    if drop_in:
        (config / "conf.d" / server.DROP_IN).write_text(drop_in)
    return server.layout("debian", version, cluster, str(root))


@contextlib.contextmanager
def running(program: Path) -> Iterator[int]:
    """A process of a program that does nothing; its id."""
    program.write_text("#!/bin/sh\necho started\nread -r line\n")
    program.chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid


# -- distributions


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("ID=debian\n", "debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "redhat"),
        ("ID=fedora\n", "redhat"),
        ('ID=arch\nPRETTY_NAME="Arch Linux"\n', "Arch Linux"),
        ("", "an unknown system"),
    ],
)
def test_the_family_of_a_distribution(release: str, kind: str) -> None:
    assert server.family(release) == kind


def test_debian_has_folders_for_each_version_and_cluster() -> None:
    where = server.layout("debian", "17", "lab")
    assert where.bin == "/usr/lib/postgresql/17/bin"
    assert where.data == "/var/lib/postgresql/17/lab"
    assert where.drop_in == "/etc/postgresql/17/lab/conf.d/50-ipyfleet.conf"
    assert where.hba == "/etc/postgresql/17/lab/pg_hba.conf"
    assert where.pem == "/etc/postgresql/17/lab/ipyfleet/server.pem"
    # never the unit without an instance, which says that all is well when nothing is
    assert where.unit == "postgresql@17-lab.service"


def test_the_el_family_has_one_cluster_whose_configuration_is_with_its_data() -> None:
    where = server.layout("redhat", "16", "main")
    assert (where.bin, where.config, where.data) == ("/usr/bin", "/var/lib/pgsql/data", "/var/lib/pgsql/data")
    assert where.unit == "postgresql.service"
    assert where.drop_in == "/var/lib/pgsql/data/conf.d/50-ipyfleet.conf"


def test_the_el_family_is_installed_by_its_own_packages() -> None:
    text = (ROOT / "roles/postgresql/vars/main.yml").read_text()
    assert "redhat: [postgresql-server, postgresql-contrib, python3-psycopg2]" in text
    tasks = (ROOT / "roles/postgresql/tasks/install_redhat.yml").read_text()
    assert "ansible.builtin.dnf:" in tasks
    assert "[postgresql-setup, --initdb]" in tasks


# -- what is there


def test_clusters_are_found_though_their_configuration_is_broken(tmp_path: Path) -> None:
    debian(tmp_path, "15", "main", "port = 'abc\nwork_mem = two words here\n")
    debian(tmp_path, "9.6", "old", "port = 5433\n")
    debian(tmp_path, "17", "main", "port = 5434 # the new one\n")
    found = server.clusters("debian", str(tmp_path))
    assert [each.name for each in found] == ["9.6/old", "15/main", "17/main"]
    assert [server.configured_port(each) for each in found] == [5433, 5432, 5434]
    assert server.majors("debian", str(tmp_path)) == ["9.6", "15", "17"]


def test_the_el_familys_cluster_is_there_once_it_has_data(tmp_path: Path) -> None:
    assert server.clusters("redhat", str(tmp_path)) == []
    (tmp_path / "var/lib/pgsql/data").mkdir(parents=True)
    (tmp_path / "var/lib/pgsql/data/PG_VERSION").write_text("16\n")
    (only,) = server.clusters("redhat", str(tmp_path))
    assert only.name == "16/main"


def test_a_data_folder_is_where_the_configuration_says(tmp_path: Path) -> None:
    assert debian(tmp_path, conf="data_directory = '/srv/it''s'\n").data == "/srv/it's"


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("work_mem = 4MB", {"work_mem": "4MB"}),
        ("Work_Mem 4MB # much", {"work_mem": "4MB"}),
        ("a = 'it''s'", {"a": "it's"}),
        ("my.own = ''", {"my.own": ""}),
        ("a = 1\na = 2", {"a": "2"}),
        ("# a = 1\n\n= 3\na b c", {}),
    ],
)
def test_settings_of_a_file(text: str, settings: dict[str, str]) -> None:
    assert server.settings_in(text) == settings


def test_settings_have_the_lines_that_they_are_on() -> None:
    text = "# a = 1\nWork_Mem = '4MB' # x\nport 5433\n\ninclude_dir = 'conf.d'\nlist = 'it''s, b'\nbad = 'x\n"
    assert server.setting_lines(text) == [(2, "work_mem", "4MB"), (3, "port", "5433"), (6, "list", "it's, b")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("include_dir = 'conf.d'", True),
        ("port = 1\n  include_dir 'conf.d'  # ours\n", True),
        ("include_dir=./conf.d/", True),
        ("#include_dir = 'conf.d'", False),
        ("include_dir = 'conf.d.old'", False),
    ],
)
def test_whether_a_configuration_includes_a_folder(text: str, expected: bool) -> None:
    assert server.includes(text, "conf.d") is expected


def test_the_port_of_a_drop_in_counts(tmp_path: Path) -> None:
    assert server.configured_port(debian(tmp_path, drop_in="port = 6000\n")) == 6000


def test_what_an_operator_has_tuned_is_his(tmp_path: Path) -> None:
    where = debian(tmp_path, conf="shared_buffers = 128MB\nmax_connections = 100\n", drop_in="work_mem = 1GB\n")
    Path(where.config, "conf.d", "10-own.conf").write_text("effective_cache_size = 3GB\n")
    # shared_buffers is what initdb writes for everybody
    assert server.tuned(where) == ["effective_cache_size", "max_connections"]
    Path(where.config, "postgresql.conf").write_text("shared_buffers = 1GB\n")
    assert "shared_buffers" in server.tuned(where)


def test_what_was_set_by_alter_system_is_the_operators_though_it_is_usual(tmp_path: Path) -> None:
    where = debian(tmp_path, conf="shared_buffers = 128MB\n")
    assert server.tuned(where) == []
    Path(where.data).mkdir(parents=True)
    Path(where.data, "postgresql.auto.conf").write_text("# by hand: not\nshared_buffers = '128MB'\n")
    assert server.tuned(where) == ["shared_buffers"]


def test_a_server_runs_when_the_process_of_its_pid_file_does(tmp_path: Path) -> None:
    where = debian(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    where = where._replace(data=str(data))
    assert server.postmaster(where) is None

    def left_by(pid: int) -> None:
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1700000000\n5433\n/run/pg\n*\n")

    with running(tmp_path / "postgres") as pid:
        left_by(pid)
        assert server.postmaster(where) == server.Postmaster(pid, 5433, "/run/pg")
    # what a host that lost power has left, before and after the number is another process's
    left_by(999999999)
    assert server.postmaster(where) is None
    left_by(os.getpid())
    assert server.postmaster(where) is None


def test_extensions_are_known_by_their_files(tmp_path: Path) -> None:
    where = debian(tmp_path)
    share = tmp_path / "usr/share/postgresql/15/extension"
    share.mkdir(parents=True)
    (share / "pg_trgm.control").touch()
    assert server.has_extension(where, "pg_trgm")
    assert not server.has_extension(where, "postgis")


def test_a_file_names_its_fleet() -> None:
    assert server.fleet_of(OURS) == "lab"
    assert server.fleet_of("# Belongs to nobody\nport = 1\n") == ""


def test_a_program_that_does_not_end_is_ended() -> None:
    assert server.run(["sleep", "60"], seconds=1)[0] == 124
    assert server.run(["/no/such/program"]) == (127, "", "/no/such/program: No such file or directory")


# -- which version the cluster has


def chosen(root: Path, version: str = "", cluster: str = "main", offers: list[str] | None = None) -> str:
    there, majors = server.clusters("debian", str(root)), server.majors("debian", str(root))
    return look.chosen(there, {"version": version, "cluster": cluster, "fleet": "lab"}, majors, ["15"] if offers is None else offers)


def test_a_new_cluster_has_the_distributions_version(tmp_path: Path) -> None:
    assert chosen(tmp_path) == "15"
    assert chosen(tmp_path, offers=[]) == ""


def test_a_cluster_that_is_there_keeps_its_version(tmp_path: Path) -> None:
    debian(tmp_path, "13")
    assert chosen(tmp_path) == "13"
    assert chosen(tmp_path, cluster="other") == "15"


def test_of_two_versions_the_fleets_own_is_meant_or_none(tmp_path: Path) -> None:
    debian(tmp_path, "13")
    debian(tmp_path, "14")
    assert chosen(tmp_path) == ""
    debian(tmp_path, "12", drop_in=OURS)
    assert chosen(tmp_path) == "12"


# -- what speaks against it

WANTED: dict[str, Any] = {"fleet": "lab", "version": "", "cluster": "main", "port": 5432, "hba": "", "replace_hba": False}
MAIN = {"name": "15/main", "version": "15", "cluster": "main", "port": 5432, "running": True}
SEEN: dict[str, Any] = {
    "family": "debian",
    "root": True,
    "systemd": True,
    "exists": True,
    "free_mb": 9000,
    "name": "15/main",
    "version": "15",
    "majors": ["15"],
    "offered": ["15"],
    "clusters": [MAIN],
    "fleet": "",
    "holder": "",
    "not_here": [],
    "extensions": [],
    "hba": "",
    "hba_path": "/etc/postgresql/15/main/pg_hba.conf",
}
PRISTINE: dict[str, Any] = SEEN | {"exists": False, "clusters": [], "majors": []}


def told(seen: dict[str, Any], **wanted: Any) -> str:
    """The one problem that there is."""
    (line,) = problems(WANTED | wanted, seen)
    assert "\n" not in line
    return line


def test_nothing_speaks_against_a_good_host() -> None:
    assert problems(WANTED, SEEN) == []
    assert problems(WANTED, PRISTINE) == []


def test_a_distribution_that_is_not_known_is_refused() -> None:
    assert told({"family": "Arch Linux"}) == (
        "expected Debian or a system of the EL family for PostgreSQL, got Arch Linux; put postgresql on another host"
    )


def test_what_a_host_has_to_have() -> None:
    assert told(SEEN | {"systemd": False}).startswith("expected systemd, got a host without it")
    assert told(PRISTINE | {"free_mb": 3}) == "expected 400 MB free for PostgreSQL, got 3 MB"


def test_another_major_version_is_no_second_empty_cluster() -> None:
    assert told(SEEN | {"exists": False}, version="17").startswith(
        "postgresql_version: expected the major version that cluster main has, 15, got 17; that would be a second, empty cluster"
    )


def test_a_version_that_no_source_offers_is_refused() -> None:
    assert "that the host's package sources offer (15), got 17" in told(PRISTINE, version="17")


@pytest.mark.parametrize("pinned", ["", "17"])
def test_sources_that_offer_no_server_are_told(pinned: str) -> None:
    seen = PRISTINE | {"offered": [], "version": pinned}
    what = f"PostgreSQL {pinned}".strip()
    assert told(seen, version=pinned).startswith(f"expected package sources that offer {what}, got none")
    # a dry run cannot fetch the lists
    assert problems(WANTED | {"version": pinned}, seen, dry=True) == []
    assert problems(WANTED | {"version": "17"}, seen | {"majors": ["17"], "version": "17"}) == []
    assert problems(WANTED | {"version": pinned}, seen | {"family": "redhat", "majors": []}) == []


def test_the_el_family_has_no_further_clusters() -> None:
    assert "expected main" in told(PRISTINE | {"family": "redhat"}, cluster="lab")


def test_a_cluster_belongs_to_one_fleet() -> None:
    assert problems(WANTED, SEEN | {"fleet": "lab"}) == []
    assert "got 15/main, which belongs to fleet other" in told(SEEN | {"fleet": "other"})


def test_a_port_belongs_to_one_cluster() -> None:
    seen = PRISTINE | {"clusters": [MAIN], "name": "15/lab"}
    assert told(seen, cluster="lab") == (
        "postgresql_port: expected a port of this cluster alone, got 5432, which cluster 15/main has;"
        " set postgresql_port to another one, or postgresql_cluster: main to use that one"
    )
    assert "got 5432 taken: nc (pid 7)" in told(PRISTINE | {"holder": "nc (pid 7)"})


def test_addresses_and_extensions_that_the_host_lacks() -> None:
    line = "postgresql_listen_addresses: expected addresses of this host, got 10.9.9.9"
    assert told(SEEN | {"not_here": [line]}) == line
    assert "got postgis; install its package" in told(SEEN | {"extensions": ["postgis"]})


def test_rules_made_by_hand_do_not_get_lost() -> None:
    hba = "local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost app app 10.0.0.0 255.255.255.0 md5\n"
    seen = SEEN | {"hba": hba}
    assert told(seen) == (
        "/etc/postgresql/15/main/pg_hba.conf: expected rules that the new file has as well, got line 3 (host app app 10.0.0.0/24 md5);"
        " take them over in postgresql_hba, or let go of them with postgresql_replace_hba: true"
    )
    assert problems(WANTED | {"replace_hba": True}, seen) == []
    # in other words, but the same rule
    assert problems(WANTED | {"hba": "host  app app 10.0.0.0/24   md5 # kept\n"}, seen) == []
    assert problems(WANTED, seen | {"hba": OURS + hba}) == []


def test_what_is_no_rule_is_not_let_go_of_either() -> None:
    assert lost_rules("host app\ninclude other.conf\n", "", []) == ["line 1 (host app)", "line 2 (include other.conf)"]


def test_who_logs_in_by_md5_is_not_locked_out() -> None:
    rule = "host all all 127.0.0.1/32 md5"
    seen = SEEN | {"hba": f"local all all peer\n{rule}\n", "md5": ["app", "web"]}
    assert f"got line 2 ({rule}, by which app, web log in, whose passwords are md5 hashes until they are set anew); take" in told(seen)
    # which scram-sha-256 lets in just as well
    assert problems(WANTED, seen | {"md5": []}) == []
    assert problems(WANTED | {"hba": rule}, seen) == []
    assert problems(WANTED | {"replace_hba": True}, seen) == []
    assert f"got line 2 ({rule}, of which a server that runs can say whom it is for)" in told(seen | {"md5": None})


@pytest.mark.parametrize("method", ["ident", "password", "trust"])
def test_other_ways_in_by_loopback_are_somebodys_own(method: str) -> None:
    assert lost_rules(f"host all all 127.0.0.1/32 {method}\n", "", []) == [f"line 1 (host all all 127.0.0.1/32 {method})"]


def test_rules_for_md5_on_other_addresses_are_somebodys_own() -> None:
    assert lost_rules("host all all 10.0.0.0/8 md5\n", "", []) == ["line 1 (host all all 10.0.0.0/8 md5)"]


# -- where clients come from


class Probe:
    """A socket that comes from an address of the same kind as its target's."""

    def __init__(self, *_: Any) -> None:
        self.own = ""

    def connect(self, target: tuple[str, int]) -> None:
        self.own = target[0].replace("::1", "::2")

    def getsockname(self) -> tuple[str, int]:
        return self.own, 1

    def close(self) -> None:
        pass


@pytest.mark.parametrize("scoped", ["fe80::1", "fe80::1%eth0"])
def test_addresses_of_one_link_are_passed_over(scoped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", Probe)
    monkeypatch.setattr(fleet_facts, "resolve", lambda _: {"addresses": [scoped, "fd00::1"]})
    assert fleet_facts.source("db", 5432) == {"address": "fd00::2"}
    monkeypatch.setattr(fleet_facts, "resolve", lambda _: {"addresses": [scoped]})
    found = fleet_facts.source("db", 5432)
    assert found["address"] == ""
    assert "beyond one link, got fe80::2" in found["error"]
