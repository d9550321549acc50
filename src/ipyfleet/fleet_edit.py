"""Edit the slots of a fleet file, and nothing else of it: comments, order and style of all other lines stay.

The text is changed where YAML's own reader says that keys and values stand; no file is written anew from its data.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ipyfleet import content
from ipyfleet.errors import InputError

Slots = int | str
NUMBERS = re.compile(r"(?P<before>[^\[\]]*)\[(?P<first>\d+):(?P<last>\d+)\](?P<after>[^\[\]]*)")
WORDS = "expected a number of slots, such as 4, 0 or +1, or auto"


@dataclass(frozen=True)
class Edit:
    """A fleet file with other numbers of slots.

    :param before: numbers of slots by host, as the file has them.
    :param after: as it will have them.
    :param groups: hosts by group, as the file will have them.
    :param meant: hosts that were named.
    """

    path: Path
    old: str
    text: str
    before: dict[str, Slots]
    after: dict[str, Slots]
    groups: dict[str, tuple[str, ...]]
    meant: tuple[str, ...]

    @property
    def diff(self) -> str:
        """The difference, as text."""
        name = self.path.name
        return "".join(difflib.unified_diff(self.old.splitlines(True), self.text.splitlines(True), name, name, n=2))

    @property
    def gone(self) -> list[str]:
        """Hosts that have no slots any more."""
        return [host for host in self.before if host not in self.after]

    @property
    def changed(self) -> list[str]:
        """Hosts that have other slots than before, or slots at last."""
        return [host for host, slots in self.after.items() if self.before.get(host) != slots]


def edit(path: Path, wanted: Mapping[str, Slots]) -> Edit:
    """The fleet file with other numbers of slots.

    :param wanted: by host or range of hosts: a number, ``0`` for none, ``+1`` or ``-1`` for more or fewer than now, or ``auto``.
    :raises InputError: when a number makes no sense, or the file is not as it should be, before or after.
    """
    old = path.read_text(encoding="utf-8")
    before, groups = read(path, old)
    targets = targets_of(wanted, before)
    text = old
    gone = {host for host, slots in targets.items() if slots == 0 and host in before}
    if any(before.get(host) != slots for host, slots in targets.items() if slots != 0) or gone:
        users = {pattern.rpartition("@")[2]: pattern for pattern in wanted if "@" in pattern}
        text = spliced(path, old, {users.get(host, host): slots for host, slots in targets.items() if host not in before}, targets, before)
        # the host is in the file for its slots alone: what is said of it goes with them
        others = {host for group, hosts in groups.items() if group != "ipp_engine" for host in hosts}
        if leaving := gone - others:
            text = without(text, "hosts", leaving)
    after, new_groups = read(path, text)
    expected = {host: slots for host, slots in {**before, **targets}.items() if slots != 0}
    if after != expected:
        raise InputError(
            [f"{path.name}: expected engines as plain hosts and numbers, got something that cannot be edited; edit it by hand"]
        )
    return Edit(path, old, text, before, after, new_groups, tuple(targets))


def read(path: Path, text: str) -> tuple[dict[str, Slots], dict[str, tuple[str, ...]]]:
    """Numbers of slots by host, and hosts by group, of a fleet file's text.

    :raises InputError: with all that is wrong with it.
    """
    files, positions = content.plugin_util("fleet_file"), content.plugin_util("fleet_yaml")
    try:
        where = positions.positions(text)
        fleet = files.read_fleet(yaml.load(text, Loader=_Loader), path.name, where)  # noqa: S506  (a safe loader)
    except files.FleetFileError as error:
        raise InputError([str(problem) for problem in error.problems]) from error
    except yaml.YAMLError as error:
        raise InputError([f"{path.name}: expected YAML, got: {' '.join(str(error).split())}"]) from error
    slots = {host: fleet.host_vars[host]["ipp_engine_slots"] for host in fleet.groups["ipp_engine"]}
    return {host: each if each == "auto" else int(each) for host, each in slots.items()}, dict(fleet.groups)


class _Loader(yaml.SafeLoader):
    """Takes Ansible's tags for text; what they mean is of no interest here."""


_Loader.add_multi_constructor("!", lambda _loader, _tag, node: str(node.value))


def targets_of(wanted: Mapping[str, Slots], before: Mapping[str, Slots]) -> dict[str, Slots]:
    """Numbers of slots by single host.

    :raises InputError: when one makes no sense.
    """
    names = content.plugin_util("names")
    found: dict[str, Slots] = {}
    wrong = []
    for pattern, value in wanted.items():
        rest = names.split_user(pattern)[1]
        try:
            hosts = names.expand(rest)
        except ValueError as error:
            wrong.append(f"{pattern}: expected {error}, got {rest!r}")
            continue
        for host in hosts:
            try:
                found[host] = number_of(str(value), before.get(host, 0))
            except ValueError as error:
                wrong.append(f"{host}: {error}")
    if wrong:
        raise InputError(wrong)
    # a host that has none is none of the fleet's
    return {host: slots for host, slots in found.items() if slots != 0 or host in before}


def number_of(word: str, now: Slots) -> Slots:
    """A number of slots from a word.

    :raises ValueError: when it is none.
    """
    if word == "auto":
        return word
    if not re.fullmatch(r"[+-]?\d{1,5}", word):
        raise ValueError(f"{WORDS}, got {word!r}")
    if word[0] not in "+-":
        return int(word)
    if now == "auto":
        raise ValueError(f"expected a number that {word} can be counted from, got auto; give the number that it shall have")
    if int(now) + int(word) < 0:
        raise ValueError(f"expected {now} slots or fewer to take away, got {word}")
    return int(now) + int(word)


# -- splicing


@dataclass(frozen=True)
class Entry:
    """One entry of a mapping, where it stands in the text."""

    key: Any
    value: Any
    begin: int
    end: int

    def hosts(self) -> list[str]:
        """The hosts that its key stands for."""
        names = content.plugin_util("names")
        try:
            return list(names.expand(names.split_user(str(self.key.value))[1]))
        except ValueError:
            return []


def entries_of(text: str, section: str) -> tuple[Any, list[Entry]]:
    """The mapping of a section, and its entries; None without it."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    node = next((value for key, value in root.value if key.value == section), None)
    if not isinstance(node, yaml.MappingNode):
        return None, []
    return node, [Entry(key, value, key.start_mark.index, end_of(key, value)) for key, value in node.value]


def end_of(key: Any, value: Any) -> int:
    """Where an entry's content ends; a block's own end would be behind the comments that follow it."""
    if isinstance(value, (yaml.MappingNode, yaml.SequenceNode)) and not value.flow_style and value.value:
        last = value.value[-1]
        return end_of(*last) if isinstance(last, tuple) else end_of(key, last)
    if value.start_mark.index < key.end_mark.index:
        raise InputError([f"{key.value}: expected a value of its own, got an alias of another; edit the fleet file by hand"])
    return max(int(value.end_mark.index), int(key.end_mark.index) + 1)


def spliced(path: Path, text: str, new: Mapping[str, Slots], targets: Mapping[str, Slots], before: Mapping[str, Slots]) -> str:
    """The text with other numbers of slots.

    :param new: those of hosts that are not in it yet, by the names that they get there.
    """
    node, entries = entries_of(text, "engines")
    if not entries:
        raise InputError([f"{path.name}: engines: expected a mapping of hosts to numbers of slots, got none"])
    edits: list[tuple[int, int, str]] = []
    for number, entry in enumerate(entries):
        pieces = list(pieces_of(entry.hosts(), targets, before))
        if any(slots is not None for _, slots in pieces):
            edits.append(replacement(text, node, entries, number, [piece for piece in pieces if piece[1] != 0]))
    if new:
        edits.append(addition(text, node, entries[-1], list(new.items())))
    return apply(text, edits)


def without(text: str, section: str, leaving: set[str]) -> str:
    """The text without hosts in a section."""
    node, entries = entries_of(text, section)
    gone: dict[str, Slots] = dict.fromkeys(leaving, 0)
    kept = [host for entry in entries for host in entry.hosts() if host not in leaving]
    if entries and not kept:
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        sections = [Entry(key, value, key.start_mark.index, end_of(key, value)) for key, value in root.value]
        place = next(number for number, each in enumerate(sections) if each.key.value == section)
        return apply(text, [replacement(text, root, sections, place, [])])
    edits = []
    for number, entry in enumerate(entries):
        pieces = list(pieces_of(entry.hosts(), gone, {}))
        if any(slots is not None for _, slots in pieces):
            edits.append(replacement(text, node, entries, number, [piece for piece in pieces if piece[1] != 0]))
    return apply(text, edits)


def apply(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """The text with all edits; the last first, so that none moves another."""
    # of two at the same place, what is replaced comes before what is added
    for begin, end, new in sorted(edits, key=lambda each: (each[0], each[1]), reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def pieces_of(hosts: Sequence[str], targets: Mapping[str, Slots], before: Mapping[str, Slots]) -> Iterator[tuple[list[str], Slots | None]]:
    """Neighbours that go on together, with their new number of slots; None where nothing changes."""
    piece: list[str] = []
    last: Slots | None = None
    for host in hosts:
        slots = targets.get(host)
        slots = None if slots is None or slots == before.get(host) else slots
        if piece and slots != last:
            yield piece, last
            piece = []
        piece, last = [*piece, host], slots
    if piece:
        yield piece, last


def replacement(
    text: str, node: Any, entries: Sequence[Entry], number: int, pieces: Sequence[tuple[list[str], Slots | None]]
) -> tuple[int, int, str]:
    """The edit that makes pieces of an entry, or takes it away."""
    entry = entries[number]
    if pieces:
        texts = [piece_text(text, node, entry, name, slots) for hosts, slots in pieces for name in named(str(entry.key.value), hosts)]
        return entry.begin, entry.end, separator(text, node, entry).join(texts)
    if node.flow_style:
        begin, end = entry.begin, entry.end
        if number + 1 < len(entries):
            end = entries[number + 1].begin
        elif number:
            begin = entries[number - 1].end
        return begin, end, ""
    begin = text.rfind("\n", 0, entry.begin) + 1
    end = text.find("\n", entry.end)
    return begin, len(text) if end < 0 else end + 1, ""


def addition(text: str, node: Any, last: Entry, new: Sequence[tuple[str, Slots]]) -> tuple[int, int, str]:
    """The edit that adds hosts behind the last entry."""
    lines = [f"{host}: {slots}" for host, slots in new]
    place = last.end
    if not node.flow_style:
        # behind the comment that the last one may have
        found = text.find("\n", last.end)
        place = len(text) if found < 0 else found
    return place, place, "".join(separator(text, node, last) + line for line in lines)


def separator(text: str, node: Any, entry: Entry) -> str:
    """What stands between two entries."""
    if node.flow_style:
        return ", "
    return "\n" + text[text.rfind("\n", 0, entry.begin) + 1 : entry.begin]


def piece_text(text: str, node: Any, entry: Entry, name: str, slots: Slots | None) -> str:
    """An entry for some of its hosts, with another number of slots."""
    quote = entry.key.style or ('"' if node.flow_style and "[" in name else "")
    rest = text[entry.key.end_mark.index : entry.end]
    if slots is not None:
        rest = apply(rest, [slots_edit(entry, text, slots)])
    return f"{quote}{name}{quote}{rest}"


def slots_edit(entry: Entry, text: str, slots: Slots) -> tuple[int, int, str]:
    """The edit of an entry's value, counted from its key's end."""
    base = entry.key.end_mark.index
    node = entry.value
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in node.value:
            if key.value == "slots":
                return value.start_mark.index - base, value.end_mark.index - base, str(slots)
        first = node.value[0][0].start_mark.index
        gap = ", " if node.flow_style else "\n" + text[text.rfind("\n", 0, first) + 1 : first]
        return first - base, first - base, f"slots: {slots}{gap}"
    return node.start_mark.index - base, entry.end - base, str(slots)


def named(pattern: str, hosts: Sequence[str]) -> list[str]:
    """Names for some neighbours of a pattern: a range where it was one of numbers, else each by itself."""
    user, at, rest = pattern.rpartition("@")
    found = NUMBERS.fullmatch(rest)
    if len(hosts) == 1 or not found:
        return [f"{user}{at}{host}" for host in hosts]
    first, last = (host[len(found["before"]) : len(host) - len(found["after"])] for host in (hosts[0], hosts[-1]))
    return [f"{user}{at}{found['before']}[{first}:{last}]{found['after']}"]
