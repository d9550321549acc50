"""Real runs of Ansible through ansible-runner, on playbooks that need no host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT, interruptible

from ipyfleet import runner
from ipyfleet.errors import CallbackError, InputError
from ipyfleet.events import Progress
from ipyfleet.runner import Request, run

HOSTS = "".join(
    f"h{number} ansible_connection=local ansible_python_interpreter='{{{{ ansible_playbook_python }}}}'\n" for number in range(3)
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hosts.ini").write_text(HOSTS)
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(runner, "MEMORY", str(tmp_path / "memory"))
    return tmp_path


def request(place: Path, tasks: str, **more: object) -> Request:
    text = "- hosts: all\n  gather_facts: false\n  tasks:\n" + textwrap.indent(textwrap.dedent(tasks), "    ")
    (place / "play.yml").write_text(text)
    return Request("trial", place / "play.yml", [str(place / "hosts.ini")], **more)  # type: ignore[arg-type]


def processes(word: str) -> list[int]:
    """Processes that have a word in their command line, other than this one."""
    others = (process.info for process in psutil.process_iter(["pid", "cmdline"]) if process.pid != os.getpid())
    return [info["pid"] for info in others if any(word in each for each in info["cmdline"] or ())]


def until_none(word: str) -> None:
    deadline = time.monotonic() + 10
    while processes(word):
        assert time.monotonic() < deadline, subprocess.run(["ps", "auxf"], capture_output=True, text=True, check=False).stdout
        time.sleep(0.1)


def test_a_run_has_a_result_and_progress(place: Path) -> None:
    seen: list[Progress] = []
    tasks = """
        - name: Greet
          ansible.builtin.debug: {msg: hello}
        - name: Change
          ansible.builtin.command: "true"
          changed_when: inventory_hostname == 'h1'
    """
    result = run(request(place, tasks), seen.append)
    assert result.ok, result.failures
    assert {host.name: host.outcome for host in result.hosts} == {"h0": "ok", "h1": "changed", "h2": "ok"}
    assert [each.task for each in seen if each.kind == "task"] == ["Change"]
    assert {each.host for each in seen if each.kind == "host"} == {"h0", "h1", "h2"}


def test_a_failed_host_is_named_with_its_reason(place: Path) -> None:
    result = run(request(place, "- ansible.builtin.fail: {msg: too bad}\n  when: inventory_hostname == 'h2'\n"))
    assert (result.status, result.rc) == ("failed", 2)
    assert [str(each) for each in result.failures] == ["h2: too bad"]


def test_secrets_are_in_no_list_of_processes_and_nothing_of_them_stays(place: Path) -> None:
    tasks = """
        - ansible.builtin.shell: "cat /proc/[0-9]*/cmdline | tr '\\\\0' ' ' >{{ playbook_dir }}/processes"
          run_once: true
        - ansible.builtin.copy: {content: "{{ word }}", dest: "{{ playbook_dir }}/word", mode: "0600"}
          run_once: true
    """
    result = run(request(place, tasks, variables={"word": "open" + "sesame"}))
    assert result.ok, result.failures
    assert (place / "word").read_text() == "opensesame"
    assert "ansible-playbook" in (place / "processes").read_text()
    assert "opensesame" not in (place / "processes").read_text()
    assert list((place / "memory").iterdir()) == []


SUDO = """#!/bin/sh
while [ "$1" != -u ]; do [ "$1" = -p ] && prompt=$2; shift; done
shift 2
printf %s "$prompt" >&2
read -r word
[ "$word" = "hu""sh" ] && exec "$@"
exit 1
"""


def test_sudo_s_password_is_answered_where_it_is_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_BECOME_ALLOW_SAME_USER", "true")
    (place / "sudo").write_text(SUDO)
    (place / "sudo").chmod(0o755)
    tasks = """
        - ansible.builtin.command: id
          become: true
    """
    words = {"ansible_become_exe": str(place / "sudo"), "ansible_become_method": "sudo"}
    prompt = r"^BECOME password.*:\s*?$"
    given = run(request(place, tasks, variables=words, arguments=["--ask-become-pass"], passwords={prompt: "hush"}))
    assert given.ok, given.failures
    wrong = run(request(place, tasks, variables=words, arguments=["--ask-become-pass"], passwords={prompt: "hash"}))
    assert not wrong.ok
    assert not any("hush" in path.read_text() for path in place.rglob("*") if path.is_file())


def test_paths_are_the_caller_s(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "more.yml").write_text("word: here\n")
    tasks = """
        - ansible.builtin.copy: {content: "{{ word }}", dest: "{{ lookup('env', 'PWD') or '.' }}/got", mode: "0600"}
          run_once: true
    """
    monkeypatch.setenv("PWD", "")
    result = run(request(place, tasks, arguments=["--extra-vars=@more.yml"]))
    assert result.ok, result.failures
    assert (place / "got").read_text() == "here"


def test_what_a_playbook_rescues_is_no_failure(place: Path) -> None:
    tasks = """
        - block:
            - ansible.builtin.fail: {msg: first way}
          rescue:
            - ansible.builtin.debug: {msg: second way}
    """
    result = run(request(place, tasks))
    assert (result.status, result.failures) == ("ok", ())


def test_host_keys_are_checked(place: Path) -> None:
    tasks = """
        - ansible.builtin.copy: {content: "{{ lookup('config', 'HOST_KEY_CHECKING') }}", dest: "{{ playbook_dir }}/checked", mode: "0600"}
          run_once: true
    """
    assert run(request(place, tasks)).ok
    assert (place / "checked").read_text() == "True"


def test_a_wrong_inventory_is_an_error_with_its_lines(place: Path) -> None:
    (place / "x.fleet.yml").write_text("plugin: fleet\nname: lab\ncontroller: head\nengines: {node1: 0}\n")
    with pytest.raises(InputError) as caught:
        run(Request("trial", ROOT / "site.yml", [str(place / "x.fleet.yml")]))
    assert caught.value.problems[0] == f"{place}/x.fleet.yml:4: engines.node1: expected a number of slots from 1 on, or `auto`, got 0"


def test_a_limit_that_fits_nobody_is_an_error(place: Path) -> None:
    with pytest.raises(InputError, match="leaves us with no hosts to target"):
        run(request(place, "- ansible.builtin.debug:\n", arguments=["--limit=nobody"]))


def test_cancelling_leaves_nothing_running(place: Path) -> None:
    cancel = threading.Event()
    word = "86400.25"

    def on_progress(progress: Progress) -> None:
        if progress.kind == "task":
            threading.Timer(1.0, cancel.set).start()

    begin = time.monotonic()
    result = run(request(place, f"- ansible.builtin.command: sleep {word}\n"), on_progress, cancel)
    assert result.status == "cancelled"
    assert time.monotonic() - begin < 20
    until_none(str(place))
    until_none(word)


def test_an_exception_in_a_callback_ends_the_run_and_loses_no_result(place: Path) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.kind == "host":
            raise ZeroDivisionError("mine")

    tasks = "- ansible.builtin.command: 'true'\n- ansible.builtin.command: sleep 30\n"
    with pytest.raises(CallbackError) as caught:
        run(request(place, tasks), on_progress)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    # what was heard before is not lost
    assert caught.value.result.hosts[0].name in ("h0", "h1", "h2")
    until_none(str(place))


SCRIPT = """
import sys
from pathlib import Path
from ipyfleet import runner
runner.MEMORY = sys.argv[3]
runner.run(runner.Request("trial", Path(sys.argv[1]), [sys.argv[2]]), lambda progress: print(progress.kind, flush=True))
"""


def test_ctrl_c_leaves_nothing_running_and_no_file(place: Path) -> None:
    asked = request(place, "- ansible.builtin.command: sleep 30\n")
    command = [sys.executable, "-c", SCRIPT, str(asked.playbook), asked.inventory[0], str(place / "memory")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with interruptible(command, place, environ) as process:
        assert process.stdout
        while "task" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    until_none(str(place))
    assert list((place / "memory").iterdir()) == []
