# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with the rules of a pg_hba.conf that PostgreSQL takes without a word: the first rule that matches decides."""

from __future__ import annotations

import difflib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import AbstractSet, Callable, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import Network, Parsed, Rule, Token

FIRST_WITH_INCLUDES = 16
LOOPBACK: Tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
EVERYWHERE: Tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
# what each type matches: sockets, and TCP as it is, with TLS, with GSSAPI
KINDS = {
    "local": {"socket"},
    "host": {"plain", "tls", "gss"},
    "hostssl": {"tls"},
    "hostnossl": {"plain", "gss"},
    "hostgssenc": {"gss"},
    "hostnogssenc": {"plain", "tls"},
}
# methods by which the server's own user gets in by the socket
OWN_METHODS = ("peer", "ident", "trust")
Resolver = Callable[[str], Sequence[str]]
# a network, or what cannot be told to be one
Place = Tuple[Optional[Network], str]


@dataclass(frozen=True)
class Server:
    """What the rules are for: the server as it will be.

    :param version: major version.
    :param user: the operating system's user who runs it, and the superuser of that name.
    :param databases: those that are there or will be made; `roles` likewise, users and groups.
    :param members: for groups, the roles that are in them, by name.
    :param ssl: whether TLS is on; `client_ca` whether certificates of clients can be checked.
    :param allowed: kinds of insecure rules that are asked for.
    """

    version: int
    user: str
    databases: FrozenSet[str]
    roles: FrozenSet[str]
    superusers: FrozenSet[str]
    ssl: bool = True
    client_ca: bool = False
    members: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    allowed: FrozenSet[str] = frozenset()


class Findings(NamedTuple):
    """One line for each thing that is wrong, and for each that is odd but does no harm."""

    problems: List[str]
    notices: List[str]


def lint(parsed: Parsed, server: Server, resolve: Resolver, known: AbstractSet[int] = frozenset()) -> Findings:
    """Judge the rules of a pg_hba.conf.

    :param parsed: what `fleet_pg_hba.parse` made of it.
    :param resolve: addresses of a host name; none when it does not resolve.
    :param known: lines that PostgreSQL refused already, with better words than ours.
    """
    problems = ["%s: %s" % (at(fault.line, fault.shown), fault.reason) for fault in parsed.faults if fault.line not in known]
    notices: List[str] = []
    for each in parsed.includes:
        if server.version < FIRST_WITH_INCLUDES:
            words = "expected PostgreSQL %d or newer for %s, got %d" % (FIRST_WITH_INCLUDES, each.reason, server.version)
            problems += [] if each.line in known else ["%s: %s" % (at(each.line, each.shown), words)]
        else:
            notices.append("%s: rules of other files are not judged" % at(each.line, each.shown))
    whole = not (parsed.faults or parsed.includes or known)
    linter = _Linter([rule for rule in parsed.rules if rule.line not in known], server, resolve)
    for number, rule in enumerate(linter.rules):
        problems += ["%s: %s" % (at(rule.line, rule), words) for words in linter.of_rule(number)]
        notices += ["%s: %s" % (at(rule.line, rule), words) for words in linter.redundant(number)]
    return Findings([*problems, *linter.lock_out(whole)], notices)


def at(line: int, shown: object) -> str:
    """Where something is wrong."""
    return "pg_hba.conf line %d (%s)" % (line, shown)


def suggestion(name: str, names: AbstractSet[str]) -> str:
    """A question for what is spelled alike, if anything is."""
    near = difflib.get_close_matches(name, sorted(names), 1)
    return "; did you mean %s?" % near[0] if near else ""


class _Linter:
    def __init__(self, rules: Sequence[Rule], server: Server, resolve: Resolver) -> None:
        self.rules = rules
        self.server = server
        self.resolve = resolve
        self.places = [self._places(rule) for rule in rules]

    def _places(self, rule: Rule) -> List[Place]:
        """Where a rule's clients are."""
        if rule.address == "all":
            return [(each, "") for each in EVERYWHERE]
        if rule.network:
            return [(rule.network, "")]
        found = self.resolve(rule.host_name) if rule.host_name else ()
        return [(ipaddress.ip_network(each), rule.address) for each in found] or [(None, rule.address)]

    def of_rule(self, number: int) -> Iterator[str]:
        """What is wrong with a rule."""
        rule = self.rules[number]
        earlier = next((each for each in self._deciders(number) if each.outcome != rule.outcome), None)
        if earlier:
            yield (
                "expected a rule that can be reached, got one that is decided before by line %d (%s);"
                " put it before that line, or take one of both away" % (earlier.line, earlier)
            )
        yield from self._names(rule)
        if rule.host_name and not self.resolve(rule.host_name):
            yield "expected a host name that resolves on this host, got %s" % rule.host_name
        if rule.type == "hostssl" and not self.server.ssl:
            yield "expected ssl to be on, got off; this rule lets nobody in"
        asks = rule.method == "cert" or any(each.startswith("clientcert=") and each != "clientcert=no-verify" for each in rule.options)
        if asks and not self.server.client_ca:
            yield "expected ssl_ca_file to be set for certificates of clients, got none; set postgresql_client_certificates"
        yield from self._insecure(number)
        yield from self._superuser(number)

    def redundant(self, number: int) -> Iterator[str]:
        """Whether a rule only says what an earlier one says."""
        deciders = self._deciders(number)
        if deciders and all(each.outcome == self.rules[number].outcome for each in deciders):
            yield "has no effect: line %d (%s) says the same before it" % (deciders[0].line, deciders[0])

    # -- names

    def _names(self, rule: Rule) -> Iterator[str]:
        for token in rule.databases:
            expression = self._is_expression(token)
            if not (expression or token.is_word("all", "sameuser", "samerole", "samegroup", "replication")):
                yield from self._unknown(token.text, self.server.databases, "a database", "postgresql_databases")
        for token in rule.users:
            name = token.text[1:] if _is_group(token) else token.text
            if not (self._is_expression(token) or token.is_word("all")):
                yield from self._unknown(name, self.server.roles, "a user", "postgresql_users")

    def _unknown(self, name: str, names: AbstractSet[str], what: str, variable: str) -> Iterator[str]:
        if name not in names:
            yield "expected %s that is there or in %s, got %s%s" % (what, variable, name, suggestion(name, names))

    def _is_expression(self, token: Token) -> bool:
        return self.server.version >= FIRST_WITH_INCLUDES and token.text.startswith("/")

    # -- what is insecure

    def _insecure(self, number: int) -> Iterator[str]:
        rule = self.rules[number]
        if rule.method == "reject":
            return
        found = []
        if rule.method in ("trust", "md5", "password") or (rule.method == "ident" and rule.type != "local"):
            found.append((rule.method, "scram-sha-256", rule.method))
        networks = [network for network, _ in self.places[number] if network is not None]
        if rule.type != "local" and any(network in EVERYWHERE for network in networks):
            found.append(("world", "the networks that clients are in", "any address"))
        if self._is_remote(number) and self._takes_plain(number):
            found.append(("plaintext", "hostssl", "%s, which takes connections without TLS" % rule.type))
        for word, expected, got in found:
            if word not in self.server.allowed:
                yield "expected %s, got %s; if that is what you want, add `%s` to postgresql_allow_insecure" % (expected, got, word)

    def _takes_plain(self, number: int) -> bool:
        """Whether connections without any encryption come as far as a rule that takes them."""
        rule = self.rules[number]
        pairs = [(database, user) for database in rule.databases for user in rule.users]
        return "plain" in KINDS[rule.type] and not all(self._covered(number, *pair, {"plain"}) for pair in pairs)

    def _is_remote(self, number: int) -> bool:
        """Whether a rule is for others than this host itself."""
        rule = self.rules[number]
        if rule.type == "local" or rule.address in ("samehost", "localhost"):
            return False
        return not all(network is not None and any(_inside(network, own) for own in LOOPBACK) for network, _ in self.places[number])

    def _superuser(self, number: int) -> Iterator[str]:
        rule = self.rules[number]
        if rule.method == "reject" or not self._is_remote(number):
            return
        for name in sorted(self.server.superusers):
            if not any(self._user_matches(token, name) for token in rule.users):
                continue
            open_to = [each for each in rule.databases if not self._covered(number, each, Token(name, True), KINDS[rule.type])]
            if open_to:
                word = "replication" if open_to[0].is_word("replication") else "all"
                reject = "host %s %s all reject" % (word, Token(name))
                yield "expected no way for the superuser %s from other hosts, got this one; put `%s` before it" % (name, reject)

    # -- who decides

    def lock_out(self, whole: bool) -> Iterator[str]:
        """Whether the server's own user gets in by the socket, to every database.

        :param whole: whether all rules are known, so that a missing one can be told.
        """
        user, told = self.server.user, set()
        for database in sorted(self.server.databases | {"postgres"}, key=lambda name: (name != "postgres", name)):
            rule = next((each for each in self.rules if self._is_for(each, database, user)), None)
            wanted = "`local all %s peer`" % user
            if rule is None and whole:
                yield "pg_hba.conf: expected a rule %s, got none that lets %s into %s by the socket" % (wanted, user, database)
            if rule is None:
                return
            if rule.method not in OWN_METHODS and rule.line not in told:
                told.add(rule.line)
                yield "%s: expected %s before it, got a rule that locks %s out" % (at(rule.line, rule), wanted, user)

    def _is_for(self, rule: Rule, database: str, user: str) -> bool:
        """Whether a rule is for a user's connections to a database by the socket."""
        if rule.type != "local" or not any(self._user_matches(token, user) for token in rule.users):
            return False
        return any(self._database_matches(token, database, user) for token in rule.databases)

    def _user_matches(self, token: Token, user: str) -> bool:
        if token.is_word("all") or self._expression_matches(token, user):
            return True
        return user in self.server.members.get(token.text[1:], ()) if _is_group(token) else token.text == user

    def _database_matches(self, token: Token, database: str, user: str) -> bool:
        if token.is_word("sameuser"):
            return database == user
        if token.is_word("samerole", "samegroup"):
            return user == database or user in self.server.members.get(database, ())
        if token.is_word("replication"):
            return False
        return token.is_word("all") or token.text == database or self._expression_matches(token, database)

    def _expression_matches(self, token: Token, name: str) -> bool:
        try:
            return self._is_expression(token) and bool(re.search(token.text[1:], name))
        except re.error:
            return False

    def _deciders(self, number: int) -> List[Rule]:
        """The earlier rules that leave nothing for this one; none when something is left."""
        rule, found = self.rules[number], []
        for database in rule.databases:
            for user in rule.users:
                earlier = self._covered(number, database, user, KINDS[rule.type])
                if earlier is None:
                    return []
                found.append(earlier)
        return found

    def _covered(self, number: int, database: Token, user: Token, kinds: AbstractSet[str]) -> Optional[Rule]:
        """An earlier rule that takes what a rule would for one word of databases and users, of some kinds of connections."""
        for other, earlier in enumerate(self.rules[:number]):
            takes = KINDS[earlier.type] >= kinds and self._address_covers(other, number)
            if takes and self._user_covers(earlier, user) and self._database_covers(earlier, database, user):
                return earlier
        return None

    def _user_covers(self, rule: Rule, user: Token) -> bool:
        named = not (_is_group(user) or user.is_word("all") or self._is_expression(user))
        return any(token == user or token.is_word("all") or (named and self._user_matches(token, user.text)) for token in rule.users)

    def _database_covers(self, rule: Rule, database: Token, user: Token) -> bool:
        word = database.is_word("all", "sameuser", "samerole", "samegroup", "replication") or self._is_expression(database)
        for token in rule.databases:
            if token == database or (token.is_word("all") and not database.is_word("replication")):
                return True
            if not word and self._database_matches(token, database.text, user.text if not _is_group(user) else ""):
                return True
        return False

    def _address_covers(self, earlier: int, later: int) -> bool:
        first, rule = self.rules[earlier], self.rules[later]
        if first.address == rule.address:
            return True
        for network, name in self.places[later]:
            inside = network is not None and any(own is not None and _inside(network, own) for own, _ in self.places[earlier])
            domain = bool(name) and first.address.startswith(".") and name.endswith(first.address)
            if not (inside or domain or {own for own, _ in self.places[earlier]} >= set(EVERYWHERE)):
                return False
        return bool(self.places[later])


def _is_group(token: Token) -> bool:
    return not token.quoted and token.text.startswith("+")


def _inside(network: Network, other: Network) -> bool:
    """Whether a network is part of another."""
    return network.version == other.version and other.supernet_of(network)  # type: ignore[arg-type]  # one version, by then
