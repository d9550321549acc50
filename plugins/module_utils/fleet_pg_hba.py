# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules of a pg_hba.conf: read as PostgreSQL reads them, and written from entries of a fleet file."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

NETWORK_TYPES = ("host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc")
TYPES = ("local", *NETWORK_TYPES)
INCLUDES = ("include", "include_if_exists", "include_dir")
METHODS = (
    *("trust", "reject", "scram-sha-256", "md5", "password", "gss", "sspi", "ident", "peer"),
    *("ldap", "radius", "cert", "pam", "bsd", "oauth"),
)
ADDRESS_WORDS = ("all", "samehost", "samenet")
SECRET_OPTIONS = ("ldapbindpasswd", "radiussecrets")
KEYS = ("type", "databases", "users", "address", "method", "options")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Reader = Callable[[str], Optional[str]]

_TOKEN = re.compile(r'[\s,]*((?:"(?:[^"]|"")*"?|[^\s,"#])+)(,?)')
_SEGMENT = re.compile(r'"((?:[^"]|"")*)"?|([^"]+)')
_PLAIN = re.compile(r"[^\s,\"#@+/]+")
_HOST_NAME = re.compile(r"\.?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")


class HbaError(ValueError):
    """An entry cannot become a rule; the message has its key, what was expected, and what it is."""


@dataclass(frozen=True)
class Token:
    """A word of a rule; one in quotes is a name even where it is spelled like a keyword."""

    text: str
    quoted: bool = False

    def is_word(self, *words: str) -> bool:
        """Whether this is one of the keywords."""
        return not self.quoted and self.text in words

    def __str__(self) -> str:
        keep = not self.quoted and all(each not in self.text for each in ' \t,"#')
        return self.text if keep else '"%s"' % self.text.replace('"', '""')


@dataclass(frozen=True)
class Rule:
    """One rule: `address` is empty for local ones, and else a network, a host name, or one of `ADDRESS_WORDS`."""

    line: int
    type: str
    databases: Tuple[Token, ...]
    users: Tuple[Token, ...]
    address: str
    method: str
    options: Tuple[str, ...] = ()

    @property
    def network(self) -> Optional[Network]:
        """The addresses of the rule; None where they are not written as a network."""
        try:
            return ipaddress.ip_network(self.address, strict=False)
        except ValueError:
            return None

    @property
    def host_name(self) -> str:
        """The host name that the rule is for; empty when there is none, or a whole domain."""
        name = "" if self.network or self.address in ADDRESS_WORDS else self.address
        return "" if name.startswith(".") else name

    @property
    def meaning(self) -> Tuple[Any, ...]:
        """What the rule says, wherever it stands: equal for equal rules."""
        return (self.type, self.databases, self.users, self.address, self.method, self.options)

    @property
    def outcome(self) -> Tuple[Any, ...]:
        """What becomes of the connections that it is for."""
        return (self.method, self.options)

    def __str__(self) -> str:
        lists = [",".join(map(str, each)) for each in (self.databases, self.users)]
        options = [str(Token(masked(each))) for each in self.options]
        return " ".join(filter(None, [self.type, *lists, self.address, self.method, *options]))


@dataclass(frozen=True)
class Fault:
    """A line that is no rule, and why; `shown` is the line as it may be shown."""

    line: int
    shown: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    """What is in a pg_hba.conf; `includes` are the lines that name other files."""

    rules: Tuple[Rule, ...]
    faults: Tuple[Fault, ...]
    includes: Tuple[Fault, ...]


def masked(option: str) -> str:
    """An option of a rule as it may be shown."""
    name = option.partition("=")[0]
    return "%s=***" % name if name in SECRET_OPTIONS else option


# -- reading


def parse(text: str, read: Reader = lambda _: None) -> Parsed:
    """Read a pg_hba.conf.

    :param text: its content.
    :param read: content of a file that a rule takes names from (``@file``); None when there is none.
    """
    rules: List[Rule] = []
    faults: List[Fault] = []
    includes: List[Fault] = []
    for number, line in logical_lines(text):
        fields = fields_of(line)
        if not fields:
            continue
        shown = " ".join(",".join(str(Token(masked(each.text), each.quoted)) for each in field) for field in fields)
        if fields[0][0].is_word(*INCLUDES):
            includes.append(Fault(number, shown, fields[0][0].text))
            continue
        try:
            rules.append(_rule(number, fields, read))
        except HbaError as error:
            faults.append(Fault(number, shown, str(error)))
    return Parsed(tuple(rules), tuple(faults), tuple(includes))


def logical_lines(text: str) -> Iterator[Tuple[int, str]]:
    """Lines with their numbers; one that ends in a backslash goes on in the next."""
    begun, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        first = first or number
        if line.endswith("\\"):
            begun += line[:-1]
            continue
        yield first, begun + line
        begun, first = "", 0
    if begun:
        yield first, begun


def fields_of(line: str) -> List[List[Token]]:
    """Fields of a line, each with its words: those that a comma joins are one field."""
    fields: List[List[Token]] = []
    joined, position = False, 0
    match = _TOKEN.match(line)
    while match:
        raw = match.group(1)
        parts = (quoted.replace('""', '"') or plain for quoted, plain in _SEGMENT.findall(raw))
        token = Token("".join(parts), raw.startswith('"'))
        if joined:
            fields[-1].append(token)
        else:
            fields.append([token])
        joined, position = bool(match.group(2)), match.end()
        match = _TOKEN.match(line, position)
    return fields


def _rule(number: int, fields: List[List[Token]], read: Reader) -> Rule:
    kind, rest = _single(fields[0], "type"), fields[1:]
    if kind not in TYPES:
        raise HbaError("expected a type of %s, got %s" % (", ".join(TYPES), kind))
    if len(rest) < 2:
        raise HbaError("expected type, databases, users%s and method, got too few words" % ("" if kind == "local" else ", address"))
    databases, users, rest = _names(rest[0], read), _names(rest[1], read), rest[2:]
    address = ""
    if kind != "local":
        if not rest:
            raise HbaError("expected an address, got none")
        mask = ""
        if _is_address(rest[0][0].text):
            mask = _single(rest[1], "mask") if len(rest) > 1 else ""
            if not _is_address(mask):
                raise HbaError("expected a mask after %s, such as /32, got %s" % (rest[0][0].text, mask or "none"))
        address, rest = _normal_address(rest[0], mask), rest[2 if mask else 1 :]
    if not rest:
        raise HbaError("expected a method, got none")
    options = tuple(token.text for field in rest[1:] for token in field)
    return Rule(number, kind, databases, users, address, _single(rest[0], "method"), options)


def _single(field: List[Token], what: str) -> str:
    if len(field) > 1:
        raise HbaError("expected one %s, got %s" % (what, ",".join(map(str, field))))
    return field[0].text


def _names(field: List[Token], read: Reader) -> Tuple[Token, ...]:
    """Names of databases or users, with those of files that are named."""
    found: List[Token] = []
    for token in field:
        if token.quoted or not token.text.startswith("@") or len(token.text) == 1:
            found.append(token)
            continue
        content = read(token.text[1:])
        if content is None:
            raise HbaError("expected a file that can be read, got %s" % token.text)
        for _, line in logical_lines(content):
            for words in fields_of(line):
                found += _names(words, read)
    return tuple(found)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _normal_address(field: List[Token], mask: str) -> str:
    text = _single(field, "address")
    if field[0].quoted or text in ADDRESS_WORDS:
        return text
    try:
        # a mask of IPv6 is written as an address, too
        bits = str(bin(int(ipaddress.ip_address(mask))).count("1")) if mask else ""
        return str(ipaddress.ip_network("/".join(filter(None, (text, bits))), strict=False))
    except ValueError:
        if "/" in text or _is_address(text) or not _HOST_NAME.fullmatch(text):
            raise HbaError("expected a network, a host name, or one of %s, got %s" % (", ".join(ADDRESS_WORDS), text)) from None
    return text


# -- writing


def lines_of(entries: Sequence[Any], where: str) -> List[str]:
    """Rules of a pg_hba.conf from entries, in their order.

    An entry is a mapping with `type` (``hostssl`` by default), `databases`, `users`, `address` (each one or
    a list; none for ``local``), `method` (``scram-sha-256``, ``peer`` for ``local``) and `options`, a mapping.

    :param where: the variable that they are in.
    :raises HbaError: with the key that is wrong, what was expected, and what it is.
    """
    return [line for number, entry in enumerate(entries) for line in _lines_of_entry(entry, "%s[%d]" % (where, number))]


def _lines_of_entry(entry: Any, where: str) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        raise HbaError("%s: expected a mapping with %s, got %s" % (where, ", ".join(KEYS), entry))
    for key in entry:
        if key not in KEYS:
            raise HbaError("%s: expected keys of %s, got %s" % (where, ", ".join(KEYS), key))
    kind = _choice(entry.get("type", "hostssl"), TYPES, where + ".type")
    method = _choice(entry.get("method", "peer" if kind == "local" else "scram-sha-256"), METHODS, where + ".method")
    databases = ",".join(quoted(each, where + ".databases") for each in _texts(entry.get("databases"), where + ".databases"))
    users = ",".join(quoted(each, where + ".users") for each in _texts(entry.get("users"), where + ".users"))
    if kind == "local" and entry.get("address"):
        raise HbaError("%s.address: expected none for type local, got %s" % (where, entry["address"]))
    addresses = [""] if kind == "local" else [_address(each, where) for each in _texts(entry.get("address"), where + ".address")]
    options = _options(entry.get("options") or {}, where + ".options")
    for address in addresses:
        yield " ".join(filter(None, (kind, databases, users, address, method, *options)))


def _choice(value: Any, choices: Sequence[str], where: str) -> str:
    if value not in choices:
        raise HbaError("%s: expected one of %s, got %s" % (where, ", ".join(choices), value))
    return str(value)


def _texts(value: Any, where: str) -> List[str]:
    """One text, or a list of some."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(each, str) and each for each in found):
        raise HbaError("%s: expected a name or a list of some, got %s" % (where, "none" if value in (None, "", []) else value))
    return list(found)


def _address(value: str, where: str) -> str:
    try:
        return _normal_address([Token(value)], "")
    except HbaError as error:
        raise HbaError("%s.address: %s" % (where, error)) from None


def quoted(name: str, where: str) -> str:
    """A database's or user's name as a pg_hba.conf has it.

    Keywords, ``+group``, ``@file``, ``/expression`` and what is in double quotes already mean what they mean there.

    :raises HbaError: when it cannot be written on a line.
    """
    if any(ord(each) < ord(" ") for each in name):
        raise HbaError("%s: expected names without line breaks and tabs, got %r" % (where, name))
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name
    mark, rest = (name[0], name[1:]) if name[0] in "+@" else ("", name)
    if _PLAIN.fullmatch(rest.lstrip("/")) and "/" not in rest[1:]:
        return name
    return mark + '"%s"' % rest.replace('"', '""')


def _options(value: Any, where: str) -> List[str]:
    if not isinstance(value, Mapping):
        raise HbaError("%s: expected a mapping, got %s" % (where, value))
    found = []
    for name, setting in value.items():
        text = "%s=%s" % (name, str(int(setting)) if isinstance(setting, bool) else setting)
        if not re.fullmatch(r"[a-z_]+=[^\x00-\x1f]+", text):
            raise HbaError("%s.%s: expected a text of one line, got %r" % (where, name, "***" if name in SECRET_OPTIONS else setting))
        found.append(str(Token(text)))
    return found
