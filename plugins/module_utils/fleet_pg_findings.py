# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What speaks against having a fleet's database on a host, judged from what was seen there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import Rule, parse
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_server import FAMILIES, fleet_of

# what the server's packages, the first cluster and its first log take
NEEDED_MB = 400
# of what initdb and the distributions' packages write into pg_hba.conf, what every file of a fleet has in its own words
DEFAULT_RULES = "\n".join(
    [
        "local all postgres peer",
        "local all all peer",
        "local replication all peer",
        *(
            "host %s all %s scram-sha-256" % (database, address)
            for database in ("all", "replication")
            for address in ("127.0.0.1/32", "::1/128")
        ),
    ]
)


def lost_rules(before: str, after: str, md5: Optional[Sequence[str]]) -> List[str]:
    """Rules of an operator's pg_hba.conf that another one does not have; those of distributions do not count.

    A distribution's rule for md5 also lets in who has a hash for scram-sha-256, and so counts where nobody has another.

    :param md5: accounts whose password is kept as an md5 hash; None while that is not known.
    """
    defaults = {rule.meaning for rule in parse(DEFAULT_RULES).rules}
    known = defaults | {rule.meaning for rule in parse(after).rules}
    there = parse(before)
    lost = {}
    for rule in there.rules:
        weak = rule.method == "md5" and _stronger(rule).meaning in defaults
        if rule.meaning not in known and not (weak and md5 is not None and not md5):
            lost[rule.line] = str(rule) + (_locked_out(md5) if weak else "")
    # what cannot be read as a rule cannot be found in the other file either
    lost.update({fault.line: fault.shown for fault in (*there.faults, *there.includes)})
    return ["line %d (%s)" % (line, lost[line]) for line in sorted(lost)]


def _stronger(rule: Rule) -> Rule:
    """A rule as it is with the method that replaces md5."""
    return replace(rule, method="scram-sha-256")


def _locked_out(md5: Optional[Sequence[str]]) -> str:
    """Who cannot log in any more when a rule for md5 becomes one for scram-sha-256."""
    if md5 is None:
        return ", of which a server that runs can say whom it is for"
    return ", by which %s log in, whose passwords are md5 hashes until they are set anew" % ", ".join(md5)


def problems(wanted: Mapping[str, Any], seen: Mapping[str, Any], dry: bool = False) -> List[str]:
    """One line for each thing that is wrong.

    :param wanted: options of the module fleet_pg_look.
    :param seen: the facts that it returns.
    :param dry: whether lists of packages may be missing because nobody could fetch them.
    """
    if seen["family"] not in FAMILIES:
        return ["expected Debian or a system of the EL family for PostgreSQL, got %s; put postgresql on another host" % seen["family"]]
    # what is wrong here makes other things look wrong, too
    found = [*_host(seen)] or [*_version(wanted, seen, dry)]
    if found:
        return found
    return [*_cluster(wanted, seen), *_port(wanted, seen), *_lists(seen), *_hba(wanted, seen)]


def _host(seen: Mapping[str, Any]) -> Iterator[str]:
    if not seen["root"]:
        yield "expected to be root, got another user; set ansible_become, or scope: user"
    if not seen["systemd"]:
        yield "expected systemd, got a host without it; put postgresql on another host, or use scope: user"
    if not seen["exists"] and seen["free_mb"] < NEEDED_MB:
        yield "expected %d MB free for PostgreSQL, got %d MB" % (NEEDED_MB, seen["free_mb"])


def _version(wanted: Mapping[str, Any], seen: Mapping[str, Any], dry: bool) -> Iterator[str]:
    pinned, cluster = wanted["version"], wanted["cluster"]
    there = [each["version"] for each in seen["clusters"] if each["cluster"] == cluster]
    if pinned and there and pinned not in there:
        yield (
            "postgresql_version: expected the major version that cluster %s has, %s, got %s; that would be a second, empty cluster:"
            " upgrade it first (pg_upgradecluster), or name another postgresql_cluster" % (cluster, " and ".join(there), pinned)
        )
    elif not pinned and len(there) > 1 and not seen["exists"]:
        yield "postgresql_version: expected one of %s, because each has a cluster %s, got none" % (", ".join(there), cluster)
    elif pinned and pinned not in seen["majors"] and seen["offered"] and pinned not in seen["offered"]:
        yield (
            "postgresql_version: expected a version that the host's package sources offer (%s), got %s;"
            " add a source that has it, such as apt.postgresql.org" % (", ".join(seen["offered"]), pinned)
        )
    elif seen["family"] == "debian" and not (seen["exists"] or seen["offered"] or dry) and seen["version"] not in seen["majors"]:
        what = "PostgreSQL %s" % pinned if pinned else "PostgreSQL"
        yield "expected package sources that offer %s, got none; correct them in /etc/apt/sources.list or sources.list.d" % what


def _cluster(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[str]:
    if seen["family"] == "redhat" and wanted["cluster"] != "main":
        yield "postgresql_cluster: expected main, because this distribution has one cluster, got %s" % wanted["cluster"]
    if seen["fleet"] and seen["fleet"] != wanted["fleet"]:
        yield (
            "postgresql_cluster: expected a cluster of this fleet alone, got %s, which belongs to fleet %s;"
            " name another one, with a postgresql_port of its own" % (seen["name"], seen["fleet"])
        )


def _port(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[str]:
    others = [each for each in seen["clusters"] if each["port"] == wanted["port"] and each["name"] != seen["name"]]
    how = "set postgresql_port to another one"
    if others:
        adopt = ", or postgresql_cluster: %s to use that one" % others[0]["cluster"] if not seen["exists"] else ""
        yield "postgresql_port: expected a port of this cluster alone, got %d, which cluster %s has; %s%s" % (
            wanted["port"],
            others[0]["name"],
            how,
            adopt,
        )
    elif seen["holder"]:
        yield "postgresql_port: expected a free port, got %d taken: %s; %s" % (wanted["port"], seen["holder"], how)


def _lists(seen: Mapping[str, Any]) -> Iterator[str]:
    for name in seen["extensions"]:
        yield "postgresql_databases: expected extensions that PostgreSQL %s has on this host, got %s; install its package" % (
            seen["version"],
            name,
        )
    yield from seen["not_here"]


def _hba(wanted: Mapping[str, Any], seen: Mapping[str, Any]) -> Iterator[str]:
    if wanted["replace_hba"] or not seen["hba"] or fleet_of(seen["hba"]):
        return
    lost = lost_rules(seen["hba"], wanted["hba"], seen.get("md5"))
    if lost:
        yield (
            "%s: expected rules that the new file has as well, got %s; take them over in postgresql_hba,"
            " or let go of them with postgresql_replace_hba: true" % (seen["hba_path"], ", ".join(lost))
        )
