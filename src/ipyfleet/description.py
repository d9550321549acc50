"""A fleet file written from what is known of a fleet, with comments that explain it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("templates") / "fleet.yml.j2"
# PyYAML writes longer keys in a form of their own, over two lines
KEY_LENGTH = 120


@dataclass(frozen=True)
class Description:
    """What a fleet file says.

    :param controller: host of the controller.
    :param engines: numbers of slots, or ``auto``, or all that is said of a host's engines, by hosts or ranges of hosts.
    :param clients: hosts of clients.
    :param location: name by which engines and clients reach the controller, where it is not its own.
    :param ip: address that the controller listens on, where it is not the usual one.
    :param hosts: variables by host.
    :param defaults: variables for all hosts.
    :param postgresql: host of the database; empty for none.
    :param jupyterlab: host of JupyterLab; empty for none.
    :param about: lines of comment for the top of the file.
    :param sources: where a key's value comes from, for a comment behind it, by path, such as ``("engines", "node1")``.
    """

    name: str
    controller: str
    engines: Mapping[str, Any]
    clients: Sequence[str] = ()
    scope: str = "system"
    location: str = ""
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    postgresql: str = ""
    jupyterlab: str = ""
    about: Sequence[str] = ()
    ip: str = ""
    sources: Mapping[tuple[str, ...], str] = field(default_factory=dict)


def fleet_text(description: Description) -> str:
    """The text of a fleet file. It is YAML whatever the values are; that they are right is for others to say."""
    import jinja2

    # what is rendered is YAML, not HTML
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    environment.filters["yaml"] = in_yaml
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(asdict(description))


def in_yaml(value: object) -> str:
    """A value in YAML, on one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    # JSON is YAML too, and never takes a second line
    return json.dumps(value) if "\n" in text or len(text) > KEY_LENGTH else text
