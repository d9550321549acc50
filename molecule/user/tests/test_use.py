"""A fleet of somebody without rights: used, looked at, stopped and started, as any other."""

from __future__ import annotations

import json

import pytest
from fleet import CLIENT_FILE, INVENTORY, LOGIN, OWN, PYTHON, command, eventually, main_pids, play, python, recap, shell
from notebook import cell, connected, get

HOSTS = ("head", "node1", "node2")


def said_of(verb: str, *words: str) -> dict[str, object]:
    done = command(verb, "-i", str(INVENTORY), "--json", *words)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", HOSTS)
def test_nobody_can_become_root_and_nothing_is_root_s(name: str) -> None:
    assert shell(name, f"setpriv --reuid={LOGIN} --clear-groups sudo -n true 2>&1; echo $?", check=False).splitlines()[-1] != "0"
    others = f"ps -eo user=,args= | grep -E '{OWN}/(env|lib)' | grep -v -e '^{LOGIN} ' -e grep"
    assert shell(name, others, check=False) == ""
    assert shell(name, f"find {OWN} ! -user {LOGIN} | head") == ""
    assert shell(name, "ls -d /opt/ipyfleet /etc/ipyfleet /var/lib/ipyfleet /root/.local 2>/dev/null", check=False) == ""


def test_the_first_lines_of_every_notebook() -> None:
    code = """
        print(json.dumps([rc.ids, rc[:].apply_sync(lambda: "Hello, World"), rc[:].apply_sync(os.uname)]))
    """
    ids, hello, machines = python("head", code)
    assert (ids, hello) == ([0, 1, 2], ["Hello, World"] * 3)
    assert [each[1] for each in machines] == ["node1", "node1", "node2"]


def test_connections_go_over_the_network_and_are_encrypted() -> None:
    info = json.loads(shell("head", f"cat {CLIENT_FILE}"))
    assert info["location"] == "head"
    assert info["curve_serverkey"]
    listening = shell("head", "ss -Hltn")
    assert f"0.0.0.0:{info['registration']}" in listening


def test_others_on_the_host_see_nothing() -> None:
    shell("head", "id eve || useradd --create-home eve")
    said = shell("head", f"setpriv --reuid=eve --regid=eve --clear-groups ls {OWN} {OWN}/etc 2>&1", check=False)
    assert said.count("Permission denied") == 2


def test_engines_may_have_many_files_open() -> None:
    code = """
        import resource
        print(json.dumps(rc[:].apply_sync(resource.getrlimit, resource.RLIMIT_NOFILE)))
    """
    assert all(soft == min(hard, 65536) for soft, hard in python("head", code))


def test_a_client_on_the_machine_that_one_deploys_from() -> None:
    said = said_of("verify")
    assert said["ok"], said
    assert said["client"]["answered"] == [0, 1, 2]  # type: ignore[index]


def test_jupyterlab_through_one_tunnel() -> None:
    with connected() as way:
        assert get(way["url"], "/api/status")[0] == 200
    assert "[0, 1, 2]" in cell("import ipyparallel as ipp; print(ipp.Client(profile='lab').ids)")


def test_a_second_run_changes_nothing_also_for_somebody_who_usually_becomes_root() -> None:
    before = main_pids()
    said = play(ANSIBLE_BECOME="true", ANSIBLE_BECOME_USER="root")
    assert said.returncode == 0, said.stdout
    assert all(counts["changed"] == 0 for counts in recap(said).values())
    assert main_pids() == before


def test_logs_and_commands_are_the_login_user_s() -> None:
    lines = said_of("logs")["logs"]
    assert {each["host"] for each in lines} == set(HOSTS)  # type: ignore[attr-defined]
    said = command("exec", "-i", str(INVENTORY), "--json", "--", "id", "-un")
    assert [(line["host"], line["text"]) for line in sorted(json.loads(said.stdout)["logs"], key=str)] == [(name, LOGIN) for name in HOSTS]


def test_stopped_started_and_restarted() -> None:
    before = main_pids()
    assert said_of("stop", "--limit=node1")["ok"]
    status = said_of("status")
    assert (status["ok"], [each["state"] for each in status["slots"]]) == (False, ["missing", "missing", "listed"])  # type: ignore[attr-defined]
    assert said_of("start", "--limit=node1")["ok"]
    assert said_of("restart", "--limit=node2")["ok"]
    eventually(lambda: python("head", "print(json.dumps(rc.ids))") == [0, 1, 2])
    after = main_pids()
    assert {key: line for key, line in before.items() if key.startswith("head ")}.items() <= after.items()
    assert not [key for key in before if key.startswith("node1 ") and key in after]


def test_the_environment_is_the_user_s_own() -> None:
    assert shell("head", f"stat -c '%U %a' {OWN}") == f"{LOGIN} 700"
    assert shell("head", f"readlink -f {PYTHON}").startswith("/usr/bin/python3")
