"""What is in a database, as figures that are the same after a faithful restore and after no other.

Of each table: its number of rows, and the sum of a hash of each row, whatever their order. Columns go
into it by name, since a restored table that inherits may have them in another order; partitions go
into their root, since a restore may choose other ones. Of sequences the value, of materialized views
whether they are filled, of large objects their number and a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipyfleet_backup_store import MeanwhileError

OWN = """
  n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""

TABLES = (
    """
SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname), format('%I.%I', m.nspname, r.relname),
  coalesce((SELECT string_agg(format('r.%I', a.attname), ', ' ORDER BY a.attname COLLATE "C")
            FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid), c.oid) JOIN pg_namespace m ON m.oid = r.relnamespace
WHERE c.relkind = 'r' AND """
    + OWN
    + "ORDER BY 2"
)

# by number, not by name: what a name stands for may be changed by its owner
SEQUENCES = (
    """
SELECT format('%I.%I', n.nspname, c.relname), pg_sequence_last_value(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND """
    + OWN
)

VIEWS = (
    """
SELECT format('%I.%I', n.nspname, c.relname), c.relispopulated
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND """
    + OWN
)

# in pieces of 64 MB: a large object may have terabytes
OBJECTS = """
SELECT count(DISTINCT m.oid),
  coalesce(sum(hashtextextended(m.oid || ' ' || part || ' ' || encode(sha256(lo_get(m.oid, part * 67108864, 67108864)), 'hex'), 0)), 0)
FROM pg_largeobject_metadata m,
  LATERAL generate_series(0, coalesce((SELECT max(pageno) FROM pg_largeobject l WHERE l.loid = m.oid), 0)::bigint * 2048 / 67108864) part
"""

MOVED = "SELECT name FROM unnest(%s::bigint[], %s::text[]) AS t(id, name) WHERE to_regclass(name)::oid::bigint IS DISTINCT FROM id"


# What is evaluated for each row that is loaded: checks of tables and domains, generated columns, keys of
# partitions. Indexes and views are built in the name of their owner, and so are no danger. What an
# expression calls is told by the numbers in its tree; of the server's own functions, those that have
# effects, or run a query that they are given, are no better than a user's.
CODE = r"""
WITH expressions(place, tree) AS (
  SELECT format('constraint %I of %s', conname, CASE conrelid WHEN 0 THEN contypid::regtype::text ELSE conrelid::regclass::text END),
    conbin::text
  FROM pg_constraint WHERE contype = 'c'
  UNION ALL
  SELECT format('column %I of %s', a.attname, a.attrelid::regclass), d.adbin::text
  FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated <> ''
  UNION ALL
  SELECT format('the key of %s', partrelid::regclass), partexprs::text FROM pg_partitioned_table WHERE partexprs IS NOT NULL)
SELECT DISTINCT format('%s, which calls %s', e.place, p.oid::regprocedure)
FROM expressions e, regexp_matches(e.tree, ':\w*funcid (\d+)', 'g') m
JOIN pg_proc p ON p.oid = m[1]::oid JOIN pg_roles o ON o.oid = p.proowner
WHERE NOT o.rolsuper OR p.provolatile = 'v' OR p.proname LIKE '%\_to\_xml%' ORDER BY 1
"""


def contents(cursor: Any) -> dict[str, Any]:
    """What is in the database of a cursor, which should be in a transaction of one snapshot.

    :raises MeanwhileError: when a table is not what it was a moment ago.
    """
    return counted(cursor, locked_tables(cursor))


def locked_tables(cursor: Any) -> list[tuple[int, str, str, str]]:
    """The tables, held as they are: in the place of one, its owner could put a view that does things as a superuser.

    :raises MeanwhileError: when a table is not what it was a moment ago.
    """
    cursor.execute(TABLES)
    known: list[tuple[int, str, str, str]] = cursor.fetchall()
    if known:
        names = [name for _, name, _, _ in known]
        cursor.execute(f"LOCK TABLE {', '.join('ONLY ' + name for name in names)} IN ACCESS SHARE MODE")
        cursor.execute(MOVED, ([number for number, _, _, _ in known], names))
        moved = cursor.fetchone()
        if moved:
            raise MeanwhileError(f"{moved[0]} was replaced meanwhile")
    return known


def counted(cursor: Any, known: Sequence[tuple[int, str, str, str]]) -> dict[str, Any]:
    """What is in tables that are held as they are, and beside them."""
    tables: dict[str, dict[str, Any]] = {}
    for _, name, root, columns in known:
        cursor.execute(f'SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text COLLATE "C", 0)), 0) FROM ONLY {name} r')
        rows, total = cursor.fetchone()
        before = tables.setdefault(root, {"rows": 0, "sum": "0"})
        tables[root] = {"rows": before["rows"] + rows, "sum": str(int(before["sum"]) + int(total))}
    cursor.execute(VIEWS)
    views = dict(cursor.fetchall())
    cursor.execute(OBJECTS)
    objects, total = cursor.fetchone()
    values = sequences(cursor)
    return {
        "tables": tables,
        "views": views,
        "objects": {"number": objects, "sum": str(total)},
        "sequences": {name: [value, value] for name, value in values.items()},
    }


def sequences(cursor: Any) -> dict[str, int | None]:
    """The last value of each sequence; None of one that was never used."""
    cursor.execute(SEQUENCES)
    return dict(cursor.fetchall())


def foreign_code(cursor: Any) -> list[str]:
    """Where a restore runs what the database's users wrote, and runs it as a superuser."""
    cursor.execute(CODE)
    return [line for (line,) in cursor.fetchall()]


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Where a restored database is not what was backed up, a line each."""
    lines = []
    for name in sorted(expected["tables"].keys() | found["tables"].keys()):
        wanted, got = expected["tables"].get(name), found["tables"].get(name)
        if wanted != got:
            lines.append(f"table {name}: expected {shown_table(wanted, got)}, got {shown_table(got, wanted)}")
    for name in sorted(expected["sequences"].keys() | found["sequences"].keys()):
        values, now = expected["sequences"].get(name), found["sequences"].get(name)
        if values is None or now is None or not within(values, now[0]):
            lines.append(f"sequence {name}: expected {shown_values(values)}, got {shown_values(now)}")
    for name in sorted(expected["views"].keys() | found["views"].keys()):
        wanted, got = expected["views"].get(name), found["views"].get(name)
        if wanted != got:
            lines.append(f"materialized view {name}: expected {shown_view(wanted)}, got {shown_view(got)}")
    if expected["objects"] != found["objects"]:
        numbers = expected["objects"]["number"], found["objects"]["number"]
        what = f"expected {numbers[0]}, got {numbers[1]}" if numbers[0] != numbers[1] else "expected their content, got another"
        lines.append("large objects: " + what)
    return lines


def within(values: Sequence[int | None], now: int | None) -> bool:
    """Whether a sequence has a value that it had while it was backed up: no snapshot holds it still.

    :param values: before and after the dump.
    """
    before, after = values
    if before == after:
        return now == before
    if before is None or after is None:
        return True
    return now is not None and min(before, after) <= now <= max(before, after)


def shown_table(table: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    """A table in few words: its rows, and their sum only where the number of rows does not tell."""
    if table is None:
        return "no such table"
    if other and other["rows"] == table["rows"]:
        return f"{table['rows']} rows with sum {table['sum']}"
    return f"{table['rows']} rows"


def shown_values(values: Sequence[int | None] | None) -> str:
    """What a sequence stood at."""
    if values is None:
        return "no such sequence"
    words = ["unused" if value is None else str(value) for value in values]
    return words[0] if words[0] == words[1] else f"{words[0]} to {words[1]}"


def shown_view(filled: bool | None) -> str:
    """Whether a materialized view has content."""
    return "no such view" if filled is None else "a filled one" if filled else "an empty one"
