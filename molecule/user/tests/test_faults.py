"""Processes that are killed."""

from __future__ import annotations

from fleet import LOGIN, answer, eventually, play, python, shell

PIDS = "print(json.dumps(rc[:].apply_async(os.getpid).get(timeout=3)))"


def kill(name: str, what: str) -> None:
    shell(name, f"pkill -KILL -u {LOGIN} -f '{what}'")


def pids() -> list[int]:
    return list(python("head", PIDS))


def works() -> None:
    eventually(lambda: answer([0, 1, 2]))


def test_a_killed_engine_is_back_under_its_id() -> None:
    before = pids()
    kill("node1", "lib/ipengine.py .*/engine-0.json --profile")
    works()
    after = pids()
    assert (after[0] != before[0], after[1:]) == (True, before[1:])


def test_a_killed_controller_is_back_and_engines_have_kept_their_memory() -> None:
    python("head", "rc[:].push({'mark': 7}, block=True); print('null')")
    before = pids()
    kill("head", "^[^ ]*python [^ ]*lib/ipcontroller.py")
    works()
    assert pids() == before
    assert python("head", "print(json.dumps(rc[:].pull('mark').get(timeout=10)))") == [7, 7, 7]


def test_systemd_starts_a_killed_supervisord() -> None:
    before = shell("node2", f"pgrep -u {LOGIN} -of supervisor.supervisord")
    kill("node2", "supervisor.supervisord")
    eventually(lambda: shell("node2", f"pgrep -u {LOGIN} -of supervisor.supervisord", check=False) not in ("", before))
    works()


def test_elsewhere_a_run_does_and_what_was_left_over_is_ended() -> None:
    before = pids()
    kill("node1", "supervisor.supervisord")
    # its programs run on, with nobody to start them anew
    assert pids() == before
    said = play("--limit=node1")
    assert said.returncode == 0, said.stdout
    assert "2 of 2 engine slots answered" in said.stdout
    assert pids()[2] == before[2]
    for number in (0, 1):
        assert shell("node1", f"pgrep -u {LOGIN} -fc 'lib/ipengine.py .*/engine-{number}.json --profile'") == "2"
