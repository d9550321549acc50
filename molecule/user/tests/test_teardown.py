"""Taking the fleet away."""

from __future__ import annotations

from fleet import LOGIN, play, recap, shell

HOSTS = ("head", "node1", "node2")


def test_nothing_is_left_and_it_can_be_deployed_again() -> None:
    try:
        said = play("-e", "teardown_data=true", playbook="playbooks/teardown.yml")
        assert said.returncode == 0, said.stdout
        for name in HOSTS:
            assert shell(name, f"pgrep -u {LOGIN} -af ipyfleet", check=False) == ""
            left = shell(name, f"find /home/{LOGIN} -mindepth 1 -not -path '*/.ssh*' -not -path '*/.ansible*' -type f | sort").split()
            assert [path.rsplit("/", 1)[1] for path in left] == [".bash_logout", ".bashrc", ".profile"]
            assert shell(name, f"ls -A /home/{LOGIN}/.config 2>/dev/null", check=False) == ""
        assert shell("node1", f"crontab -u {LOGIN} -l 2>&1", check=False) == f"no crontab for {LOGIN}"
        assert shell("node2", "ls /var/lib/systemd/linger") == ""
        again = play("-e", "teardown_data=true", playbook="playbooks/teardown.yml")
        assert all(counts["changed"] == 0 for counts in recap(again).values())
    finally:
        assert play().returncode == 0
