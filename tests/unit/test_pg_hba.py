"""The rules of a pg_hba.conf: as they are read, judged by who decides first, and written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import HbaError, lines_of, parse
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_lint import Findings, Server, lint

SERVER = Server(
    version=15,
    user="postgres",
    databases=frozenset({"lab", "postgres"}),
    roles=frozenset({"lab", "bob", "team", "postgres"}),
    superusers=frozenset({"postgres"}),
    members={"team": frozenset({"bob"})},
)
# what every file needs, so that a case has one thing that is wrong
HEAD = "local all postgres peer\nhost all postgres all reject\n"
ADDRESSES = {"node1": ["10.0.0.3"], "localhost": ["127.0.0.1", "::1"]}


def judge(text: str, head: str = HEAD, **changes: Any) -> Findings:
    return lint(parse(head + text), replace(SERVER, **changes), lambda name: ADDRESSES.get(name, []))


def read(text: str, files: dict[str, str] | None = None) -> list[str]:
    return [str(rule) for rule in parse(text, (files or {}).get).rules]


# -- reading


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("local   all\tpostgres  peer # the server's own", "local all postgres peer"),
        ("host a,b, c u 10.0.0.7/24 scram-sha-256", "host a,b,c u 10.0.0.0/24 scram-sha-256"),
        ("host all all 10.1.2.3 255.255.0.0 md5", "host all all 10.1.0.0/16 md5"),
        ("host all all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust", "host all all ::1/128 trust"),
        ('host "all" "a ""b"" #c" samenet md5', 'host "all" "a ""b"" #c" samenet md5'),
        ("hostssl all \\\n  all node1 cert \\\n  map=x", "hostssl all all node1 cert map=x"),
        ('host all all .lab.org ldap ldapserver=x "ldapbindpasswd=a b"', "host all all .lab.org ldap ldapserver=x ldapbindpasswd=***"),
        ("host all +team all reject", "host all +team all reject"),
    ],
)
def test_a_rule_is_read_as_postgresql_does(line: str, expected: str) -> None:
    assert read(f"# first\n\n{line}\n") == [expected]


def test_rules_have_the_number_of_the_line_that_they_begin_on() -> None:
    assert [rule.line for rule in parse("\nlocal all all \\\n peer\nlocal all all trust\n").rules] == [2, 4]


def test_names_are_taken_from_files() -> None:
    assert read("local @names all peer\n", {"names": "a, b\n# no\n@more\n", "more": "c"}) == ["local a,b,c all peer"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hosts all all all md5", "expected a type of local, host, hostssl, hostnossl, hostgssenc, hostnogssenc, got hosts"),
        ("local all", "expected type, databases, users and method, got too few words"),
        ("host all all", "expected an address, got none"),
        ("host all all all", "expected a method, got none"),
        ("host all all 10.0.0.1 scram-sha-256", "expected a mask after 10.0.0.1, such as /32, got scram-sha-256"),
        ("host all all 10.0.0.0/33 md5", "expected a network, a host name, or one of all, samehost, samenet, got 10.0.0.0/33"),
        ("host @names all all md5", "expected a file that can be read, got @names"),
    ],
)
def test_a_line_that_is_no_rule_says_why(line: str, reason: str) -> None:
    assert [(fault.line, fault.shown, fault.reason) for fault in parse(f"\n{line}\n").faults] == [(2, line, reason)]


# -- judging


def test_rules_of_a_fleet_are_fine() -> None:
    text = (
        "local all,replication postgres peer\n"
        "host all postgres all reject\n"
        "hostssl lab lab 10.0.0.3/32 scram-sha-256\n"
        "hostssl lab lab node1 scram-sha-256 clientcert=verify-full\n"
        "hostnossl lab all all reject\n"
        "local all,replication all peer\n"
        "host all,replication all 127.0.0.1/32 scram-sha-256\n"
        "host all,replication all localhost scram-sha-256\n"
    )
    assert judge(text, head="", client_ca=True) == Findings(
        [
            "pg_hba.conf line 4 (hostssl lab lab node1 scram-sha-256 clientcert=verify-full): expected a rule that can be reached, got one"
            " that is decided before by line 3 (hostssl lab lab 10.0.0.3/32 scram-sha-256); put it before that line,"
            " or take one of both away"
        ],
        [],
    )
    assert judge(text.replace("node1", "10.0.0.4/32"), head="", client_ca=True) == Findings([], [])


SHADOWED = "expected a rule that can be reached, got one that is decided before by line 3"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("host all all all reject", "hostssl lab lab 10.0.0.0/24 scram-sha-256"),
        ("host lab lab 10.0.0.0/8 reject", "hostssl lab lab 10.0.0.0/24 scram-sha-256"),
        ("hostssl lab lab 10.0.0.0/24 scram-sha-256", "hostssl lab lab 10.0.0.3/32 reject"),
        ("hostssl lab lab 10.0.0.0/24 scram-sha-256", "hostssl lab lab node1 reject"),
        ("hostssl sameuser lab 10.0.0.0/24 reject", "hostssl lab lab 10.0.0.3/32 scram-sha-256"),
        ("hostssl lab +team 10.0.0.0/24 reject", "hostssl lab bob 10.0.0.3/32 scram-sha-256"),
        ("hostssl lab lab,bob 10.0.0.0/24 reject", "hostssl lab bob,lab 10.0.0.0/24 scram-sha-256"),
        ("hostssl lab lab .lab.org reject", "hostssl lab lab a.lab.org scram-sha-256"),
        ("local all all reject", "local lab lab peer"),
    ],
)
def test_a_rule_that_is_never_reached(first: str, second: str) -> None:
    assert [each for each in judge(f"{first}\n{second}\n").problems if SHADOWED in each]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hostnossl all all all reject", "hostssl lab lab 10.0.0.0/24 scram-sha-256"),
        ("host lab lab 10.0.1.0/24 reject", "hostssl lab lab 10.0.0.0/24 scram-sha-256"),
        ("host lab bob 10.0.0.0/24 reject", "hostssl lab lab,bob 10.0.0.0/24 scram-sha-256"),
        ("host all bob all reject", "hostssl lab +team 10.0.0.0/24 scram-sha-256"),
        ('host lab "all" all reject', "hostssl lab lab 10.0.0.0/24 scram-sha-256"),
        ("host all lab all reject", "hostssl replication lab 10.0.0.0/24 scram-sha-256"),
        ("host lab lab 0.0.0.0/0 reject", "hostssl lab lab fd00::/8 scram-sha-256"),
        ("local all all reject", "hostssl lab lab 10.0.0.0/24 scram-sha-256"),
    ],
)
def test_a_rule_that_is_reached(first: str, second: str) -> None:
    assert not [each for each in judge(f"{first}\n{second}\n").problems if SHADOWED in each]


def test_a_rule_that_says_the_same_again_is_only_noticed() -> None:
    text = "hostssl lab lab 10.0.0.0/24 scram-sha-256\nhostssl lab lab 10.0.0.3/32 scram-sha-256\n"
    assert judge(text) == Findings(
        [],
        [
            "pg_hba.conf line 4 (hostssl lab lab 10.0.0.3/32 scram-sha-256): has no effect:"
            " line 3 (hostssl lab lab 10.0.0.0/24 scram-sha-256) says the same before it"
        ],
    )


def test_a_file_without_a_way_in_for_the_servers_own_user() -> None:
    problem = "pg_hba.conf: expected a rule `local all postgres peer`, got none that lets postgres into postgres by the socket"
    assert judge("hostssl lab lab 10.0.0.0/24 scram-sha-256\n", head="").problems == [problem]
    assert judge("", head="").problems == [problem]


@pytest.mark.parametrize("line", ["local all all scram-sha-256", "local postgres postgres reject", "local lab all scram-sha-256"])
def test_a_rule_that_locks_the_servers_own_user_out(line: str) -> None:
    (problem,) = [each for each in judge(f"{line}\n{HEAD}", head="").problems if "locks" in each]
    assert problem == f"pg_hba.conf line 1 ({line}): expected `local all postgres peer` before it, got a rule that locks postgres out"


@pytest.mark.parametrize("line", ["local all postgres peer map=admins", "local all +admins peer", "local postgres,lab postgres peer"])
def test_a_rule_that_lets_the_servers_own_user_in(line: str) -> None:
    roles = SERVER.roles | {"admins"}
    assert judge(f"{line}\nlocal all all scram-sha-256\n", head="", roles=roles, members={"admins": {"postgres"}}).problems == []


CLIENT = "hostssl lab lab 10.0.0.0/24 scram-sha-256"
INSECURE = "; if that is what you want, add `%s` to postgresql_allow_insecure"


@pytest.mark.parametrize(
    ("line", "problem", "word"),
    [
        ("hostssl lab lab 10.0.0.0/24 trust", "expected scram-sha-256, got trust", "trust"),
        ("local lab lab trust", "expected scram-sha-256, got trust", "trust"),
        ("hostssl lab lab 10.0.0.0/24 md5", "expected scram-sha-256, got md5", "md5"),
        ("hostssl lab lab 10.0.0.0/24 password", "expected scram-sha-256, got password", "password"),
        ("host lab lab 127.0.0.1/32 ident", "expected scram-sha-256, got ident", "ident"),
        ("hostssl lab lab 0.0.0.0/0 scram-sha-256", "expected the networks that clients are in, got any address", "world"),
        ("hostssl lab lab ::/0 scram-sha-256", "expected the networks that clients are in, got any address", "world"),
        ("hostssl lab lab all scram-sha-256", "expected the networks that clients are in, got any address", "world"),
        ("host lab lab 10.0.0.0/24 scram-sha-256", "expected hostssl, got host, which takes connections without TLS", "plaintext"),
        ("hostnossl lab lab node1 scram-sha-256", "expected hostssl, got hostnossl, which takes connections without TLS", "plaintext"),
    ],
)
def test_what_is_insecure_has_to_be_allowed_by_name(line: str, problem: str, word: str) -> None:
    shown = parse(line).rules[0]
    assert judge(line + "\n").problems == [f"pg_hba.conf line 3 ({shown}): {problem}{INSECURE % word}"]
    assert judge(line + "\n", allowed=frozenset({word})).problems == []


@pytest.mark.parametrize(
    "text",
    [
        "host lab lab 127.0.0.1/32 scram-sha-256",
        "host lab lab ::1/128 scram-sha-256",
        "host lab lab samehost scram-sha-256",
        "host lab lab localhost scram-sha-256",
        "local lab lab ident",
        "hostnossl all all all reject\nhost lab lab 10.0.0.0/24 scram-sha-256",
        "hostgssenc lab lab 10.0.0.0/24 gss",
    ],
)
def test_what_is_not_insecure(text: str) -> None:
    assert judge(text + "\n").problems == []


@pytest.mark.parametrize(
    ("line", "changes", "problem"),
    [
        (CLIENT, {"ssl": False}, "expected ssl to be on, got off; this rule lets nobody in"),
        (
            "hostssl labb lab 10.0.0.0/24 scram-sha-256",
            {},
            "expected a database that is there or in postgresql_databases, got labb; did you mean lab?",
        ),
        ("hostssl lab eve 10.0.0.0/24 scram-sha-256", {}, "expected a user that is there or in postgresql_users, got eve"),
        (
            "hostssl lab +teams 10.0.0.0/24 scram-sha-256",
            {},
            "expected a user that is there or in postgresql_users, got teams; did you mean team?",
        ),
        ("hostssl lab lab node7 scram-sha-256", {}, "expected a host name that resolves on this host, got node7"),
        (
            "hostssl lab lab 10.0.0.0/24 scram-sha-256 clientcert=verify-ca",
            {},
            "expected ssl_ca_file to be set for certificates of clients, got none; set postgresql_client_certificates",
        ),
        (
            "hostssl lab lab 10.0.0.0/24 cert",
            {},
            "expected ssl_ca_file to be set for certificates of clients, got none; set postgresql_client_certificates",
        ),
        (
            "hostssl all lab,bob 10.0.0.0/24 scram-sha-256",
            {"superusers": frozenset({"bob"})},
            "expected no way for the superuser bob from other hosts, got this one; put `host all bob all reject` before it",
        ),
        (
            "hostssl replication all 10.0.0.0/24 scram-sha-256",
            {},
            "expected no way for the superuser postgres from other hosts, got this one;"
            " put `host replication postgres all reject` before it",
        ),
    ],
)
def test_a_rule_that_does_not_do_what_it_is_there_for(line: str, changes: dict[str, Any], problem: str) -> None:
    assert judge(line + "\n", **changes).problems == [f"pg_hba.conf line 3 ({line}): {problem}"]
    assert judge(CLIENT + "\n").problems == []


def test_expressions_are_names_before_postgresql_16() -> None:
    line = "hostssl lab /^b 10.0.0.0/24 scram-sha-256\n"
    assert "got /^b" in judge(line).problems[0]
    assert judge(line, version=16).problems == []
    (problem,) = judge(line, version=16, superusers=frozenset({"bob"})).problems
    assert "the superuser bob" in problem


def test_includes_need_postgresql_16() -> None:
    assert judge("include_dir hba.d\n").problems == [
        "pg_hba.conf line 3 (include_dir hba.d): expected PostgreSQL 16 or newer for include_dir, got 15"
    ]
    assert judge("include_dir hba.d\n", head="", version=16) == Findings(
        [], ["pg_hba.conf line 1 (include_dir hba.d): rules of other files are not judged"]
    )


def test_what_postgresql_refused_is_not_judged_again() -> None:
    text = "host all all 10.0.0.0/33 md5\nhost all all 0.0.0.0/0 scram\n"
    assert lint(parse(HEAD + text), SERVER, ADDRESSES.get, frozenset({3, 4})) == Findings([], [])  # type: ignore[arg-type]


# -- writing


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"databases": "lab", "users": "lab", "address": "10.0.0.7"}, ["hostssl lab lab 10.0.0.7/32 scram-sha-256"]),
        ({"type": "local", "databases": ["lab"], "users": "all"}, ["local lab all peer"]),
        (
            {
                "databases": ["a", "b c"],
                "users": ["+team", "o'x", "we#", 'q"'],
                "address": "node1",
                "method": "cert",
                "options": {"map": "x y"},
            },
            ['hostssl a,"b c" +team,o\'x,"we#","q""" node1 cert "map=x y"'],
        ),
        (
            {"databases": "lab", "users": "lab", "address": ["10.0.0.0/24", "fd00::/8"]},
            ["hostssl lab lab 10.0.0.0/24 scram-sha-256", "hostssl lab lab fd00::/8 scram-sha-256"],
        ),
        ({"databases": '"all"', "users": "svc@corp", "address": "all", "method": "reject"}, ['hostssl "all" "svc@corp" all reject']),
    ],
)
def test_entries_become_lines(entry: dict[str, Any], expected: list[str]) -> None:
    lines = lines_of([entry], "postgresql_hba")
    assert lines == expected
    assert [str(rule) for rule in parse("\n".join(lines)).rules] == expected


GOOD = {"databases": "lab", "users": "lab", "address": "10.0.0.0/24"}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("lab", "postgresql_hba[0]: expected a mapping with type, databases, users, address, method, options, got lab"),
        (GOOD | {"user": "x"}, "postgresql_hba[0]: expected keys of type, databases, users, address, method, options, got user"),
        (
            GOOD | {"type": "tcp"},
            "postgresql_hba[0].type: expected one of local, host, hostssl, hostnossl, hostgssenc, hostnogssenc, got tcp",
        ),
        ({"users": "lab", "address": "all"}, "postgresql_hba[0].databases: expected a name or a list of some, got none"),
        (GOOD | {"users": [1]}, "postgresql_hba[0].users: expected a name or a list of some, got [1]"),
        (GOOD | {"users": "a\nb"}, "postgresql_hba[0].users: expected names without line breaks and tabs, got 'a\\nb'"),
        (
            GOOD | {"address": "10.0.0/24"},
            "postgresql_hba[0].address: expected a network, a host name, or one of all, samehost, samenet, got 10.0.0/24",
        ),
        (GOOD | {"type": "local"}, "postgresql_hba[0].address: expected none for type local, got 10.0.0.0/24"),
        (GOOD | {"options": "map=x"}, "postgresql_hba[0].options: expected a mapping, got map=x"),
        (
            GOOD | {"method": "ldap", "options": {"ldapbindpasswd": "a\nb"}},
            "postgresql_hba[0].options.ldapbindpasswd: expected a text of one line, got '***'",
        ),
    ],
)
def test_an_entry_that_cannot_be_a_rule_says_why(entry: Any, problem: str) -> None:
    with pytest.raises(HbaError) as caught:
        lines_of([entry], "postgresql_hba")
    assert str(caught.value) == problem
