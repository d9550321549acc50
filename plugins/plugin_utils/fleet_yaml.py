# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where each key of a YAML file stands, and which keys stand there twice.

Ansible's loader keeps the last of two equal keys; in a fleet file that would silently drop a host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

Path = tuple[str, ...]


@dataclass(frozen=True)
class Positions:
    """Lines (1-based) of a YAML document's keys."""

    lines: dict[Path, int] = field(default_factory=dict)
    duplicates: tuple[tuple[Path, int, int], ...] = ()

    def line(self, path: Path) -> int:
        """Line of `path`, or of its nearest parent that the file has; 1 for the document."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def positions(text: str) -> Positions:
    """Find the line of every key in `text`.

    :param text: a YAML document; tags such as ``!vault`` are left alone.
    :raises yaml.YAMLError: when the text is not YAML.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[Path, int] = {}
    duplicates: list[tuple[Path, int, int]] = []
    for path, line in _walk(root, ()):
        if path in lines and not path[-1].isdigit():
            duplicates.append((path, lines[path], line))
        lines.setdefault(path, line)
    return Positions(lines, tuple(duplicates))


def _walk(node: yaml.Node | None, path: Path) -> Iterator[tuple[Path, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _walk(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            here = (*path, str(number))
            yield here, value.start_mark.line + 1
            yield from _walk(value, here)
