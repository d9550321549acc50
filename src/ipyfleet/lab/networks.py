"""Networks of a lab: fixed addresses, and names that its hosts resolve."""

from __future__ import annotations

import hashlib
import re

from ipyfleet.lab.engine import Engine, LabError, last_line

# the label of a lab's containers and networks, and that of what addresses in a network begin with
LABEL = "ipyfleet.lab"
BASE_LABEL = "ipyfleet.lab.base"


def network_name(prefix: str, name: str) -> str:
    """What the engine calls a network; a lab's own has no name but the lab's."""
    return f"{prefix}-{name}" if name else prefix


def network(engine: Engine, prefix: str, name: str = "") -> str:
    """Make a network of a lab, if there is none; returns what its addresses begin with.

    Hosts get fixed addresses: podman would hand out another one at every start.

    :raises LabError: when no subnet is free.
    """
    full = network_name(prefix, name)
    found = engine.run("network", "inspect", full, check=False)
    if found.returncode == 0 and (match := re.search(rf'"{re.escape(BASE_LABEL)}":\s*"([\d.]+)"', found.stdout)):
        return match[1]
    seed = int(hashlib.sha256(full.encode()).hexdigest(), 16)
    failure = ""
    for attempt in range(30):
        number = (seed + attempt * 7919) % (50 * 250)
        base = f"10.{200 + number // 250}.{1 + number % 250}"
        labels = ["--label", f"{LABEL}={prefix}", "--label", f"{BASE_LABEL}={base}"]
        made = engine.run("network", "create", *labels, "--subnet", f"{base}.0/24", full, check=False)
        if made.returncode == 0:
            return base
        failure = last_line(made)
    raise LabError(f"network {full}: expected a free subnet, got: {failure}")


def aliases_of(host: str, name: str, plain: bool) -> list[str]:
    """Names of a host in a network.

    :param plain: whether its own name leads there.
    """
    return [*([host] if plain else []), *([f"{host}.{name}"] if name else [])]


def connect(engine: Engine, prefix: str, name: str, host: str, container: str, address: str) -> None:
    """Put a host that runs into one more network."""
    words = [word for alias in aliases_of(host, name, plain=False) for word in ("--alias", alias)]
    # docker takes none here
    words += ["--mac-address", mac_of(f"{container}.{name}")] if engine.name == "podman" else []
    engine.run("network", "connect", "--ip", address, *words, network_name(prefix, name), container)


def mac_of(container: str) -> str:
    """The hardware address of a host: the same after a restart, as a real one's is.

    With another one, its neighbours would go on talking to the old one for up to a minute.
    """
    return ":".join(["02", *re.findall("..", hashlib.sha256(container.encode()).hexdigest()[:10])])


def remove_networks(engine: Engine, prefix: str) -> None:
    """Remove all networks of a lab."""
    names = engine.run("network", "ls", "--filter", f"label={LABEL}={prefix}", "--format", "{{.Name}}").stdout.split()
    if names:
        engine.run("network", "rm", *names)
