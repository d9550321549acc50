"""A fleet on this machine, and how it feels: see bin/demo.

Everything that this makes outside of the fleet's own folder is in .demo, in the clone: tools,
caches, logs. Nothing goes to the user's caches, so that nothing is left when it is removed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # in the clone too

import bootstrap  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
LOG = DEMO / "ansible.log"
FLEET = Path.home() / ".local" / "share" / "ipyfleet" / "local"


def environment(programs: Path) -> dict[str, str]:
    """Environment in which Ansible and uv keep to .demo."""
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOME": str(DEMO / "ansible"),
        "ANSIBLE_REMOTE_TEMP": str(DEMO / "ansible" / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "XDG_CACHE_HOME": str(DEMO / "cache"),
        "UV_CACHE_DIR": str(DEMO / "cache" / "uv"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def play(programs: Path, playbook: str, *arguments: str) -> None:
    """Run a playbook on the local fleet; its steps are shown, its output goes to the log."""
    command = [str(programs / "ansible-playbook"), "-i", str(ROOT / "inventories" / "local.fleet.yml"), str(ROOT / playbook), *arguments]
    with LOG.open("w") as log:
        process = subprocess.Popen(
            command, text=True, env=environment(programs), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if step := re.match(r"TASK \[(?:\w+ : )?(.*?)\] \*", line):
                print(f"  {step[1]}", flush=True)
        code = process.wait()
    if code:
        sys.exit(f"\n{failure(LOG.read_text())}\n(the whole story is in {LOG})")


def failure(text: str) -> str:
    """What a playbook's output says of its failure."""
    found = re.findall(r"\[ERROR\]: (?:Task failed: )?(?:Action failed: )?(.*?)\n(?:Origin:|\n|$)", text, re.DOTALL)
    return "\n".join(dict.fromkeys(found)) or "the playbook failed"


def changes() -> str:
    """How much the last playbook changed."""
    found = re.search(r"changed=(\d+)", LOG.read_text())
    return "nothing had to be changed" if found and found[1] == "0" else "deployed"


def cell() -> str:
    """What the last playbook says of the cell that it ran in JupyterLab."""
    found = re.search(r"JupyterLab on localhost: (a cell ran .*?);", LOG.read_text())
    return f" In JupyterLab, {found[1]}." if found else ""


def up() -> None:
    """Bring the fleet up, then use it as a person would."""
    begin = time.monotonic()
    print("Getting ready (ansible-core and uv, into .demo)", flush=True)
    DEMO.mkdir(exist_ok=True)
    os.environ["UV_CACHE_DIR"] = str(DEMO / "cache" / "uv")
    programs = bootstrap.make(DEMO / "tools", ROOT / "requirements.txt")
    print("Bringing up the fleet of inventories/local.fleet.yml", flush=True)
    play(programs, "site.yml")
    print(f"Done in {time.monotonic() - begin:.0f} s: {changes()}.{cell()}\n", flush=True)
    python = FLEET / "env" / "bin" / "python"
    # where a server of Jupyter's notes its address
    environ = {**os.environ, "JUPYTER_RUNTIME_DIR": str(FLEET / "run")}
    subprocess.run([str(python), str(ROOT / "tools" / "hello.py"), "local"], env=environ, check=True)
    print(f"""
To use it from a notebook of another Jupyter, take {python} as its kernel's Python, and paste:

    import ipyparallel as ipp
    rc = ipp.Client(profile="local")
    rc[:].apply_sync(lambda: "Hello, World")

For the database, in a shell: . ~/.config/ipyfleet/local/database.sh
bin/demo --remove takes all of it away, notebooks too.""")


def remove() -> None:
    """Take the fleet away, and what bringing it up has left."""
    if not DEMO.exists() and not FLEET.exists():
        print("There is no demo to remove.")
        return
    DEMO.mkdir(exist_ok=True)
    os.environ["UV_CACHE_DIR"] = str(DEMO / "cache" / "uv")
    programs = bootstrap.make(DEMO / "tools", ROOT / "requirements.txt")
    play(programs, "playbooks/teardown.yml", "-e", "teardown_data=true", "-e", "teardown_keys=true")
    shutil.rmtree(DEMO)
    print("Removed.")


def main() -> None:
    about = "A fleet on this machine, without root: a controller, two engines, a database and JupyterLab, verified."
    parser = argparse.ArgumentParser(prog="bin/demo", description=about)
    parser.add_argument("--remove", action="store_true", help="take it away, without a trace, notebooks too")
    arguments = parser.parse_args()
    try:
        remove() if arguments.remove else up()
    except bootstrap.BootstrapError as problem:
        sys.exit(f"bin/demo: {problem}")
    except KeyboardInterrupt:
        sys.exit("bin/demo: interrupted; run it again to go on")


if __name__ == "__main__":
    main()
