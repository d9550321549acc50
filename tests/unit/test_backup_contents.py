"""Backups of the database: what is compared, and the SQL that brings databases back. No server is needed."""

from __future__ import annotations

from typing import Any

import ipyfleet_backup_roles as roles
import ipyfleet_backup_server as server
import ipyfleet_backup_sums as sums
import pytest
from test_backup import CONTENTS, TABLES

# -- what is compared


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"tables": {"public.t": {"rows": 2, "sum": "42"}}}, "table public.t: expected 3 rows, got 2 rows"),
        ({"tables": {"public.t": {"rows": 3, "sum": "41"}}}, "table public.t: expected 3 rows with sum 42, got 3 rows with sum 41"),
        ({"tables": {}}, "table public.t: expected 3 rows, got no such table"),
        ({"tables": {**TABLES, "public.u": {"rows": 0, "sum": "0"}}}, "table public.u: expected no such table, got 0 rows"),
        ({"sequences": {"public.s": [8, 8]}}, "sequence public.s: expected 3 to 7, got 8"),
        ({"sequences": {"public.s": [None, None]}}, "sequence public.s: expected 3 to 7, got unused"),
        ({"sequences": {}}, "sequence public.s: expected 3 to 7, got no such sequence"),
        ({"views": {"public.v": False}}, "materialized view public.v: expected a filled one, got an empty one"),
        ({"objects": {"number": 0, "sum": "0"}}, "large objects: expected 1, got 0"),
        ({"objects": {"number": 1, "sum": "6"}}, "large objects: expected their content, got another"),
    ],
)
def test_a_difference_is_a_line(change: dict[str, Any], line: str) -> None:
    found = CONTENTS | {"sequences": {"public.s": [5, 5]}}
    assert sums.differences(CONTENTS, found) == []
    assert sums.differences(CONTENTS, found | change) == [line]


@pytest.mark.parametrize(
    ("values", "now", "good"),
    [
        ([3, 3], 3, True),
        ([3, 3], 4, False),
        ([9, 3], 5, True),
        ([9, 3], 2, False),
        ([None, None], None, True),
        ([None, None], 1, False),
        ([None, 4], 2, True),
    ],
)
def test_a_sequence_may_have_gone_on_while_it_was_dumped(values: list[int | None], now: int | None, good: bool) -> None:
    assert sums.within(values, now) is good


# -- SQL


PROPERTIES: dict[str, Any] = {
    "owner": 'o"o', "charset": "UTF8", "datcollate": "C.UTF-8", "datctype": "C.UTF-8", "datacl": ["x"], "comment": "it's",
    "grants": [["", "TEMPORARY", False], ["a b", "CONNECT", True]],
    "settings": [["", 'search_path="$user", public'], ["r", "my.x=1"]],
}  # fmt: skip


def test_a_database_is_made_as_it_was_for_whatever_version() -> None:
    locale = "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
    old = f'CREATE DATABASE "x" TEMPLATE template0 OWNER "o""o" ENCODING \'UTF8\' {locale} CONNECTION LIMIT 0'
    assert server.create_sql("x", PROPERTIES, 130000) == old
    assert server.create_sql("x", PROPERTIES | {"datlocprovider": "c"}, 150000) == f"{old} LOCALE_PROVIDER libc"
    icu = PROPERTIES | {"datlocprovider": "i", "datlocale": "de", "daticurules": "&a<b"}
    assert server.create_sql("x", icu, 170000) == f"{old} LOCALE_PROVIDER icu ICU_LOCALE 'de' ICU_RULES '&a<b'"
    builtin = PROPERTIES | {"datlocprovider": "b", "datlocale": "C.UTF-8"}
    assert server.create_sql("x", builtin, 170000) == f"{old} LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"


def test_rights_and_settings_of_a_database_come_back() -> None:
    assert server.property_sql("x", PROPERTIES) == [
        'REVOKE ALL ON DATABASE "x" FROM PUBLIC',
        'REVOKE ALL ON DATABASE "x" FROM "o""o"',
        'GRANT TEMPORARY ON DATABASE "x" TO PUBLIC',
        'GRANT CONNECT ON DATABASE "x" TO "a b" WITH GRANT OPTION',
        "SELECT pg_catalog.set_config('search_path', '\"$user\", public', false)",
        'ALTER DATABASE "x" SET "search_path" FROM CURRENT',
        'ALTER ROLE "r" IN DATABASE "x" SET "my"."x" TO \'1\'',
        "COMMENT ON DATABASE \"x\" IS 'it''s'",
    ]


def test_a_role_comes_back_with_its_groups_as_far_as_they_are_there() -> None:
    role: dict[str, Any] = {
        **dict.fromkeys(roles.ATTRIBUTES, False), "rolcanlogin": True, "rolconnlimit": 3, "rolvaliduntil": "2031-01-01",
        "settings": ["work_mem=1MB\nALTER ROLE r SUPERUSER;"],
        "groups": [{"name": "g", "admin_option": True}, {"name": "gone", "admin_option": False}],
    }  # fmt: skip
    lines = roles.role_sql("r", role, "SCRAM-SHA-256$x")
    attributes = "NOSUPERUSER NOINHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 3"
    assert lines == [
        f"CREATE ROLE \"r\" WITH {attributes} PASSWORD 'SCRAM-SHA-256$x' VALID UNTIL '2031-01-01'",
        'ALTER ROLE "r" SET "work_mem" TO \'1MB\nALTER ROLE r SUPERUSER;\'',
    ]
    assert roles.group_sql("r", role, ["g"], 150000) == ['GRANT "g" TO "r" WITH ADMIN OPTION']
    assert roles.group_sql("r", role, ["g"], 170000) == ['GRANT "g" TO "r" WITH ADMIN TRUE, INHERIT TRUE, SET TRUE']
