# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a rehearsal of a PostgreSQL configuration showed, in one line for each thing that is wrong."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, FrozenSet, Iterator, List, Mapping, NamedTuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_env import last_line
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import Parsed, parse
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_lint import (
    FIRST_WITH_INCLUDES,
    Findings,
    Resolver,
    Server,
    at,
    lint,
    suggestion,
)
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_secrets import shown
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_trial import AUTO, Candidate, overrides

SETTINGS = "postgresql_settings"
# where the distribution's unit and tools look for files
PLACES = ("config_file", "data_directory", "hba_file", "ident_file", "external_pid_file", "unix_socket_directories")
INCLUDES = ("include", "include_dir", "include_if_exists")
VARIABLES = {"listen_addresses": "postgresql_listen_addresses", "port": "postgresql_port"}
CERTIFICATES = ("ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file")
# variables that others of the drop-in's settings come from
SOURCES = {
    **VARIABLES,
    "max_connections": "postgresql_max_connections",
    **dict.fromkeys(("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem"), "postgresql_memory_mb"),
}
ON = ("on", "true", "yes", "1")
# what the server says after all else, and how it begins to list what it takes
SUMMARY, CHOICES = ("contains errors", "skipping missing configuration file"), "Available values: "
UNKNOWN = ("unrecognized configuration parameter", "invalid configuration parameter name")
NEW_CERTIFICATE = "the new certificate"

_SAID = re.compile(
    r"^(?:.*?\b(?P<level>DEBUG|LOG|NOTICE|WARNING|ERROR|FATAL|PANIC)|(?P<more>HINT|DETAIL|CONTEXT)|postgres):\s+(?P<text>.*)$"
)
_NAME = re.compile(r'parameter (?:name )?"([^"]+)"')
_RANGE = re.compile(r'^(?P<got>.+) is outside the valid range for parameter "[^"]+" \((?P<low>.+) \.\. (?P<high>.+)\)')
_VALUE = re.compile(r'^invalid value for parameter "[^"]+": "(?P<got>.*)"')
_SYNTAX = re.compile(r'^syntax error in file "(?P<file>[^"]+)" line (?P<line>\d+), near (?P<near>.*)$')


class Message(NamedTuple):
    """Something that the server said; `hint` is what it added, if that is of help."""

    level: str
    text: str
    hint: str = ""


def refused(settings: Mapping[str, Any], allowed: FrozenSet[str]) -> List[str]:
    """Settings that the operator cannot set as they are, one line for each.

    :param settings: the variable `postgresql_settings`.
    :param allowed: kinds of insecure rules that are asked for.
    """
    found = []
    for given, value in settings.items():
        name, got = str(given).lower(), shown(str(given), value)
        if not re.fullmatch(r"[a-z_][\w$]*(\.[a-z_][\w$]*)*", name):
            expected, got = "names of settings", str(given)
        elif isinstance(value, Mapping) or (isinstance(value, str) and re.search(r"[\x00-\x1f]", value)):
            expected, got = "a value of one line", repr(value) if isinstance(value, str) else "a mapping"
        elif name in PLACES or name in INCLUDES:
            expected = "no such setting, because the distribution says where files are"
        elif name in VARIABLES:
            expected = "it in %s" % VARIABLES[name]
        elif name in CERTIFICATES:
            expected = "no such setting, because the certificate is the fleet's"
        elif name == "password_encryption" and "md5" not in allowed and str(value).lower() != "scram-sha-256":
            expected = "scram-sha-256"
        else:
            continue
        found.append("%s.%s: expected %s, got %s" % (SETTINGS, given, expected, got))
    return found


def messages(text: str) -> List[Message]:
    """What the server said, with what it added below."""
    found: List[Message] = []
    for line in text.splitlines():
        match = _SAID.match(line)
        if not match:
            continue
        if match.group("more") and found:
            if match.group("more") != "CONTEXT":
                found[-1] = found[-1]._replace(hint=" ".join(filter(None, (found[-1].hint, match.group("text")))))
        else:
            found.append(Message(match.group("level") or "FATAL", match.group("text")))
    return found


def judge(candidate: Candidate, settings: Mapping[str, Any], seen: Mapping[str, Any], server: Server, resolver: Resolver) -> Findings:
    """What is wrong with a candidate, one line for each thing.

    :param settings: the variable `postgresql_settings`.
    :param seen: what `fleet_pg_trial.rehearse` returned.
    :param server: whose `ssl` and `client_ca` are taken from what was seen.
    :param resolver: addresses of a host name; none when it does not resolve.
    """
    judgement = _Judgement(candidate, settings, seen)
    problems = [*judgement.of_texts(), *judgement.of_start(), *judgement.of_files()]
    parsed = parse(candidate.hba, seen["named"].get)
    if candidate.version < FIRST_WITH_INCLUDES:
        # which the server takes for rules of an unknown type
        for each in parsed.includes:
            judgement.bad_rules.pop(each.line, None)
    problems += judgement.of_rules(parsed)
    server = replace(server, ssl=judgement.value("ssl").lower() in ON, client_ca=bool(judgement.value("ssl_ca_file")))
    findings = lint(parsed, server, resolver, frozenset(judgement.bad_rules))
    problems += findings.problems
    if "refused" in seen and not problems:
        problems.append("pg_hba.conf: expected a way in for %s by the socket, got: %s" % (server.user, judgement.clean(seen["refused"])))
    return Findings(list(dict.fromkeys(problems)), findings.notices)


class _Judgement:
    def __init__(self, candidate: Candidate, settings: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
        self.candidate = candidate
        self.given = {str(name).lower(): str(name) for name in settings}
        self.seen = seen
        self.own = overrides(candidate, seen["folder"])
        # the last one decides
        self.lines = {name: (path, line, value) for path, line, name, value in seen["lines"]}
        self.own_lines = {name: (path, line, value) for path, line, name, value in seen["lines"] if path == candidate.drop_in}
        bad = [each for each in seen.get("rules", ()) if each["error"]]
        # older servers have one file, and do not name it
        here = [each for each in bad if self.relative(each.get("file_name") or self.own["hba_file"]) == "pg_hba.conf"]
        self.bad_rules = {int(each["line_number"]): str(each["error"]) for each in here}
        self.bad_elsewhere = [each for each in bad if each not in here]

    def clean(self, text: str) -> str:
        """What the server said of the rehearsal's files, said of those that they stand for."""
        for name, path in (("config", self.candidate.config), ("data", self.candidate.data)):
            text = text.replace(os.path.join(self.seen["folder"], name), path)
        return text.replace(os.path.join(self.seen["folder"], "server.pem"), NEW_CERTIFICATE)

    def relative(self, path: str) -> str:
        """Name of a configuration file, as a person would say it."""
        path = self.clean(path)
        return AUTO if os.path.basename(path) == AUTO else os.path.relpath(path, self.candidate.config)

    def value(self, name: str) -> str:
        """What a setting will be."""
        return str(self.seen.get("values", {}).get(name) or self.lines.get(name, ("", 0, ""))[2])

    def where(self, name: str, path: str = "", line: int = 0) -> str:
        """Where a setting has to be changed: the variable that it comes from, or its file.

        :param path: the file, and `line` its line; those that decide, unless they are given.
        """
        name = name.lower()
        if not path:
            path, line = self.lines.get(name, (self.candidate.drop_in, 0, ""))[:2]
        if path == self.candidate.drop_in:
            if name in self.given:
                return "%s.%s" % (SETTINGS, self.given[name])
            if name in SOURCES:
                return SOURCES[name]
        return " ".join(filter(None, (path, "line %d" % line if line else "", "(%s)" % name if name else "")))

    # -- before a start

    def of_texts(self) -> Iterator[str]:
        """What `postgres -C` says against the drop-in, and against the whole configuration."""
        found = [
            (each, text == "drop_in")
            for text in ("drop_in", "whole")
            for each in messages(self.seen[text])
            if not any(word in each.text for word in SUMMARY)
        ]
        if not found and (self.seen["drop_in"] or self.seen["whole"]):
            text = last_line(self.seen["drop_in"] or self.seen["whole"])
            yield "PostgreSQL: expected a configuration that can be read, got: %s" % self.clean(text)
        told = set()
        for message, own in found:
            # said of the drop-in alone, it is about that; of the whole, about whoever has the last word
            if message not in told:
                yield self.of_message(message, own)
            told.add(message)

    def of_message(self, message: Message, own: bool = False) -> str:
        """A line of the server's about a setting.

        :param own: whether it read nothing but the drop-in.
        """
        syntax, named = _SYNTAX.match(message.text), _NAME.search(message.text)
        if syntax:
            path, line = self.relative(syntax.group("file")), int(syntax.group("line"))
            return "%s line %d: expected NAME = 'VALUE', got a syntax error near %s" % (path, line, syntax.group("near"))
        if not named:
            return self.blame(message, "that can be read")
        name_of = named.group(1)
        lines = {**self.lines, **self.own_lines} if own else self.lines
        path, line, value = lines.get(name_of.lower(), (self.candidate.drop_in, 0, ""))
        got = shown(name_of, value)
        limits, wrong = _RANGE.match(message.text), _VALUE.match(message.text)
        kinds = {kind.lower(): text for kind, text in self.seen.get("kinds", {}).items()}
        if any(words in message.text for words in UNKNOWN):
            known = frozenset([*self.seen.get("kinds", ()), *self.seen.get("values", ())])
            expected, got = "a setting of PostgreSQL %d" % self.candidate.version, "an unknown one" + suggestion(name_of, known)
        elif limits:
            expected = "%s to %s" % (limits.group("low"), limits.group("high"))
        elif kinds.get(name_of.lower()) and not message.hint:
            expected = kinds[name_of.lower()]
        elif wrong:
            hint = message.hint.rstrip(".")
            expected = "one of %s" % hint[len(CHOICES) :] if hint.startswith(CHOICES) else "a value that PostgreSQL takes"
            got = shown(name_of, wrong.group("got") or value) + ("" if hint.startswith(CHOICES) or not hint else " (%s)" % hint)
        else:
            expected, got = "a value that PostgreSQL takes", "%s (%s)" % (got, self.clean(message.text))
        return "%s: expected %s, got %s" % (self.where(name_of, path, line), expected, got)

    # -- at the start

    def of_start(self) -> Iterator[str]:
        """Why the server did not start, or let nobody in."""
        if self.seen["drop_in"] or self.seen["whole"] or "files" in self.seen:
            return
        text = self.seen.get("closed") or self.seen["log"]
        fatal = [each for each in messages(text) if each.level in ("FATAL", "PANIC")]
        for each in fatal[:1] or [Message("FATAL", last_line(text))]:
            yield self.blame(each, "that the server starts with")

    def blame(self, message: Message, what: str) -> str:
        """A line of the server's that does not say which setting it is about."""
        text = self.clean(message.text)
        if NEW_CERTIFICATE in text:
            return "the server's certificate: expected one %s, got: %s" % (what, text)
        ranks = {name: (name not in self.given, self.lines[name][0] != self.candidate.drop_in, text.find(name)) for name in self.lines}
        for name in sorted(ranks, key=ranks.__getitem__):
            if name == "ssl_cert_file" and "private key" in text:
                continue  # it may be in the same file
            value = self.lines[name][2]
            words = {value, *(each.strip(" \"'") for each in value.split(","))} - {""}
            said = "_" in name and re.search(r"\b%s\b" % re.escape(name), text)
            if said or any('"%s"' % each in text for each in words) or (name == "shared_buffers" and "shared memory" in text):
                return "%s: expected a value %s, got %s: %s" % (self.where(name), what, shown(name, value), text)
        return "PostgreSQL: expected a configuration %s, got: %s" % (what, text)

    # -- what the server makes of its files

    def of_files(self) -> Iterator[str]:
        """Settings that were not taken, or that others beat."""
        rows = self.seen.get("files", [])
        told = set()
        for each in messages(self.seen["log"]):
            named = _NAME.search(each.text)
            if "files" in self.seen and each.level == "WARNING" and named and named.group(1) not in self.own:
                told.add(named.group(1).lower())
                yield self.of_message(each)
        for row in rows:
            name = str(row["name"]).lower()
            if row["error"] and name not in self.own and name not in told:
                where = self.where(name, self.relative(row["sourcefile"]), row["sourceline"])
                yield "%s: expected a value that PostgreSQL takes, got %s (%s)" % (where, shown(name, row["setting"]), row["error"])
        last = {str(row["name"]).lower(): row for row in rows}
        for row in rows:
            yield from self.beaten(row, last[str(row["name"]).lower()])
        for name, row in last.items():
            yield from self.misplaced(name, row)

    def beaten(self, row: Mapping[str, Any], last: Mapping[str, Any]) -> Iterator[str]:
        """Whether another file has the last word on a setting of the drop-in."""
        name, path = str(row["name"]), self.relative(last["sourcefile"])
        if self.relative(row["sourcefile"]) != self.candidate.drop_in or path == self.candidate.drop_in:
            return
        if row["setting"] != last["setting"]:
            where = self.where(name, self.candidate.drop_in, row["sourceline"])
            how = "run ALTER SYSTEM RESET %s" % name if path == AUTO else "take it away there"
            values = shown(name, row["setting"]), shown(name, last["setting"])
            yield "%s: expected %s, got %s from %s line %d, which is read later; %s" % (where, *values, path, last["sourceline"], how)

    def misplaced(self, name: str, row: Mapping[str, Any]) -> Iterator[str]:
        """Whether a setting leads the server away from its files, or wants more huge pages than there are."""
        value, expected = str(row["setting"]), ""
        wanted = {"hba_file": os.path.join(self.candidate.config, "pg_hba.conf"), "data_directory": self.candidate.data}
        if name in wanted and os.path.normpath(os.path.join(self.candidate.data, value)) != os.path.normpath(wanted[name]):
            expected = wanted[name]
        elif name == "huge_pages" and value == "on":
            need, there = int(self.value("shared_memory_size_in_huge_pages") or 0), self.seen["huge_pages"]
            expected = "%d huge pages (vm.nr_hugepages)" % need if there < need else ""
            value = str(there)
        if expected:
            yield "%s: expected %s, got %s" % (self.where(name, self.relative(row["sourcefile"]), row["sourceline"]), expected, value)

    def of_rules(self, parsed: Parsed) -> Iterator[str]:
        """Rules that the server does not take."""
        wrong = "%%s: expected a rule that PostgreSQL %d takes, got: %%s" % self.candidate.version
        by_line = {rule.line: str(rule) for rule in parsed.rules}
        by_line.update({fault.line: fault.shown for fault in (*parsed.faults, *parsed.includes)})
        if "rules" in self.seen and not self.seen["rules"]:
            yield "pg_hba.conf: expected rules, got none, with which the server does not start"
        for line, error in sorted(self.bad_rules.items()):
            yield wrong % (at(line, by_line.get(line, "")), self.clean(error))
        for each in self.bad_elsewhere:
            where = "%s line %d" % (self.relative(each["file_name"]), each["line_number"])
            yield wrong % (where, self.clean(each["error"]))
