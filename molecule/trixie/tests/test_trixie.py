"""What differs from the default scenario: another Python, another login, another source of packages."""

from __future__ import annotations

import os

from fleet import NAME, PYTHON, host, inventory, main_pids, play, python, recap, shell


def test_the_first_lines_of_every_notebook_as_the_user_who_logged_in() -> None:
    said = python("head", 'print(json.dumps([rc.ids, rc[:].apply_sync(lambda: "Hello, World")]))', user="ops")
    assert said == [list(range(len(said[0]))), ["Hello, World"] * len(said[0])]


def test_the_client_s_file_is_the_login_user_s() -> None:
    entry = host("head").file(f"/home/ops/.ipython/profile_{NAME}/security/ipcontroller-client.json")
    assert (entry.user, entry.group, entry.mode) == ("ops", "ops", 0o600)
    assert not host("head").file("/root/.ipython").exists


def test_every_engine_runs_debian_13_s_python() -> None:
    versions = python("head", "import platform; print(json.dumps(rc[:].apply_sync(platform.python_version)))", user="ops")
    assert {version.rsplit(".", 1)[0] for version in versions} == {"3.13"}


def test_auto_is_cores_capped_by_memory() -> None:
    cores = int(shell("node1", "nproc"))
    memory = int(shell("node1", "awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo"))
    wanted = max(1, min(cores, memory // 8000))
    hosts = python("head", "import socket; print(json.dumps(rc[:].apply_sync(socket.gethostname)))", user="ops")
    assert hosts.count("node1") == wanted


def test_a_host_builds_from_its_own_index_with_the_same_lock() -> None:
    stamps = {name: shell(name, f"cat /opt/ipyfleet/{NAME}/env/ipyfleet.json") for name in ("node1", "node2")}
    locks = {name: stamp.split('"lock": "')[1].split('"')[0] for name, stamp in stamps.items()}
    assert locks["node1"] == locks["node2"]
    listed = {name: shell(name, f"ls /opt/ipyfleet/{NAME}/env/lib/python3.13/site-packages | grep dist-info") for name in stamps}
    assert listed["node1"] == listed["node2"]
    assert shell("node2", f"test -e /opt/ipyfleet/{NAME}/env/uv || echo gone") == "gone"


def test_bytecode_is_there_however_it_was_made() -> None:
    for name in ("node1", "node2"):
        assert int(shell(name, f"find -L /opt/ipyfleet/{NAME}/env/lib -name '*.cpython-313.pyc' | wc -l")) > 1000


def test_mixed_python_versions_are_refused_in_one_sentence_before_anything_is_changed() -> None:
    before = main_pids()
    for playbook in ("playbooks/validate.yml", "site.yml"):
        said = play(playbook=playbook)
        assert said.returncode != 0
        assert (
            "expected one version of Python on all hosts, because code travels between them, got 3.13 on head, node1, node2; 3.11 on old;"
            " set ipp_node_python on the odd ones, or leave them out"
        ) in said.stdout
        assert "1 problem; nothing was changed" in said.stdout
        assert all(counts["changed"] == 0 for counts in recap(said).values())
    assert shell("old", "ls -d /opt/ipyfleet /etc/ipyfleet /var/lib/ipyfleet 2>/dev/null", check=False) == ""
    assert main_pids() == before


def test_status_and_verify_work_for_a_login_without_root() -> None:
    for playbook in ("playbooks/verify.yml", "playbooks/status.yml"):
        said = play("--limit=localhost:all:!old", playbook=playbook)
        assert said.returncode == 0, said.stdout
    assert inventory()["_meta"]["hostvars"]["head"]["ansible_user"] == "ops"
    assert PYTHON
    assert os.environ["MOLECULE_SCENARIO_NAME"] == "trixie"
