"""Backups of the database: which are kept, what is compared, and what is told of them. No server is needed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyfleet_backup
import ipyfleet_backup_files as files
import ipyfleet_backup_restore as restore
import ipyfleet_backup_server as server
import ipyfleet_backup_store as store
import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import backups
from conftest import ROOT

TABLES = {"public.t": {"rows": 3, "sum": "42"}}
CONTENTS: dict[str, Any] = {
    "tables": TABLES,
    "sequences": {"public.s": [3, 7]},
    "views": {"public.v": True},
    "objects": {"number": 1, "sum": "5"},
}


def made(folder: Path, name: str, *, proven: bool | None = None, size: int = 1000) -> None:
    """A backup of one database, with one file of a hundred bytes."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "lab.dump").write_bytes(b"x" * 100)
    content = {"lab.dump": {"bytes": 100, "sha256": files.digest_or_none(str(path / "lab.dump"))}}
    databases = {"lab": {"file": "lab.dump", "bytes": size, "contents": CONTENTS}}
    (path / store.MANIFEST).write_text(json.dumps({"schema": 1, "name": name, "databases": databases, "files": content}))
    if proven is not None:
        (folder / store.PROOFS).mkdir(exist_ok=True)
        proof = {
            "manifest": files.digest_or_none(str(path / store.MANIFEST)),
            "ok": proven,
            "when": "2026-03-01T00:00:00Z",
            "reason": "a row",
        }
        (folder / store.PROOFS / f"{name}.json").write_text(json.dumps(proof if not proven else proof | {"reason": ""}))


def days(*numbers: int) -> list[str]:
    return [f"202603{number:02}T021500Z" for number in numbers]


def settings(folder: Path, **more: Any) -> store.Settings:
    known: dict[str, Any] = {
        "bin_dir": "/bin",
        "socket_dir": "/run",
        "data": "/data",
        "port": 5432,
        "superuser": "postgres",
        "databases": ["lab"],
        "keep": 2,
        "work": "",
        "timer": "",
    }
    return store.Settings(**known, folder=str(folder))._replace(**more)


# -- which are kept


@pytest.mark.parametrize(
    ("proven", "keep", "gone"),
    [
        ([], 3, [1]),
        ([], 9, []),
        ([4], 3, [1]),
        ([1], 1, [3, 2]),
        ([1, 2], 1, [3, 1]),
        ([3], 3, [1]),
    ],
)
def test_the_newest_are_kept_and_the_newest_that_is_proven(tmp_path: Path, proven: list[int], keep: int, gone: list[int]) -> None:
    for number in (1, 2, 3, 4):
        made(tmp_path, *days(number), proven=True if number in proven else None)
    assert [each.name for each in store.expired(store.backups(str(tmp_path)), keep)] == days(*gone)


def test_what_goes_takes_its_proof_with_it_and_one_that_is_read_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        made(tmp_path, *days(number), proven=False)
    known = store.backups(str(tmp_path))
    with store.locked(known[2].path, "", shared=True):
        assert store.forget(str(tmp_path), known[1:]) == days(2)
    assert sorted(os.listdir(tmp_path)) == [*days(1), *days(3), "proofs"]
    assert sorted(os.listdir(tmp_path / "proofs")) == [f"{name}.json" for name in days(1, 3)]


def test_what_was_cut_off_is_swept_and_never_taken_for_a_backup(tmp_path: Path) -> None:
    made(tmp_path, *days(1))
    made(tmp_path, f"{store.UNFINISHED}{days(2)[0]}")
    assert [each.name for each in store.backups(str(tmp_path))] == days(1)
    store.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == days(1)


def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    busy = pytest.raises(store.BusyError, match="expected to be alone at it, got another backup under way")
    with store.locked(path, "a backup"), busy, store.locked(path, "another backup"):
        pass
    with store.locked(path, "a backup"):
        pass


# -- finding and trusting them


def test_a_backup_is_found_by_name_or_as_the_newest(tmp_path: Path) -> None:
    with pytest.raises(store.Problem, match="expected a backup, got none; make one first"):
        store.find(str(tmp_path), "latest")
    for number in (1, 2):
        made(tmp_path, *days(number))
    assert store.find(str(tmp_path), "latest").name == days(2)[0]
    assert store.find(str(tmp_path), days(1)[0]).name == days(1)[0]
    with pytest.raises(store.Problem, match=f"expected a backup that is there, or latest, got monday; there are {', '.join(days(2, 1))}"):
        store.find(str(tmp_path), "monday")
    (tmp_path / days(2)[0] / store.MANIFEST).write_text("{")
    with pytest.raises(store.Problem, match=r"expected a whole manifest\.json, got a damaged one"):
        store.find(str(tmp_path), "latest")


def test_a_file_that_is_not_what_was_written_is_named(tmp_path: Path) -> None:
    made(tmp_path, *days(1))
    backup = store.find(str(tmp_path), "latest")
    store.check_files(backup, ["lab.dump"])
    dump = Path(backup.path) / "lab.dump"
    dump.write_bytes(b"y" * 100)
    with pytest.raises(store.DamagedError, match=r"lab\.dump: expected the file that was backed up, got other content"):
        store.check_files(backup, ["lab.dump"])
    dump.unlink()
    with pytest.raises(store.DamagedError, match="got none that can be read"):
        store.check_files(backup, ["lab.dump"])


def test_a_proof_is_of_the_very_backup(tmp_path: Path) -> None:
    made(tmp_path, *days(1), proven=True)
    assert store.backups(str(tmp_path))[0].proven
    manifest = tmp_path / days(1)[0] / store.MANIFEST
    manifest.write_text(manifest.read_text() + "\n")
    assert not store.backups(str(tmp_path))[0].proven


@pytest.mark.parametrize(
    "change", [{"ok": None}, {"ok": "yes"}, {"when": 7}, {"when": None}, {"reason": ["x"]}, {"reason": "x" * files.NOTE_BYTES}]
)
def test_a_proof_that_no_drill_writes_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    made(tmp_path, *days(1), proven=False)
    path = tmp_path / store.PROOFS / f"{days(1)[0]}.json"
    written = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in written.items() if value is not None}))
    told = store.overview(settings(tmp_path), 0, "")
    assert (told["newest"]["proven"], told["newest"]["reason"], told["problems"]) == (None, "", [])


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "depth", "mute"])
def test_what_is_no_proof_holds_nothing_up(tmp_path: Path, kind: str) -> None:
    made(tmp_path, *days(1), proven=True)
    path = tmp_path / store.PROOFS / f"{days(1)[0]}.json"
    if kind == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "depth":
        path.write_text("[" * 60_000)
    elif kind == "mute":
        path.write_bytes(b"\xff\x00")
    assert store.backups(str(tmp_path))[0].proof is None


def test_a_reason_cannot_write_to_terminals(tmp_path: Path) -> None:
    made(tmp_path, *days(1), proven=False)
    path = tmp_path / store.PROOFS / f"{days(1)[0]}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reason": "a\x1b[2J\nrow"}))
    assert store.overview(settings(tmp_path), 0, "")["problems"] == [f"the drill of backup {days(1)[0]} failed: a?[2J?row"]


def test_a_failure_that_cannot_be_read_is_not_told(tmp_path: Path) -> None:
    made(tmp_path, *days(1))
    (tmp_path / store.FAILED).write_text('{"when": "2026-03-03T02:15:00Z"}')
    assert store.overview(settings(tmp_path), 0, "")["problems"] == []


def test_space_is_reckoned_by_the_backup_before(tmp_path: Path) -> None:
    assert store.needed_bytes(5000, None) == 5000
    made(tmp_path, *days(1), size=1000)
    before = store.backups(str(tmp_path))[0]
    assert store.needed_bytes(1000, before) == 120
    assert store.needed_bytes(2000, before) == 240
    store.check_space(str(tmp_path), 1, "for a backup")
    with pytest.raises(store.Problem, match=rf"{tmp_path}: expected 1000000\.0 TB free for a backup, got "):
        store.check_space(str(tmp_path), 10**18, "for a backup")


# -- what is told


def test_the_overview_says_what_is_wrong(tmp_path: Path) -> None:
    nothing = store.overview(settings(tmp_path), 0, "")
    assert (nothing["newest"], nothing["newest_proven"], nothing["proven_text"]) == (None, None, "none")
    assert nothing["problems"] == ["there is no backup yet"]
    made(tmp_path, *days(1), proven=True)
    made(tmp_path, *days(2), proven=False)
    (tmp_path / store.FAILED).write_text('{"when": "2026-03-03T02:15:00Z", "reason": "no space"}')
    now = store.seconds_of(days(2)[0]) + 90
    told = store.overview(settings(tmp_path, timer="a.timer"), now, "inactive")
    assert (told["newest"]["name"], told["newest"]["age"], told["newest"]["rows"]) == (*days(2), 90, 3)
    assert (told["newest_proven"]["name"], told["newest_proven"]["age"], told["proven_text"]) == (*days(1), 86490, "1 d old")
    assert told["problems"] == [
        "the backup of 2026-03-03T02:15:00Z failed: no space",
        f"the drill of backup {days(2)[0]} failed: a row",
        "a.timer is inactive: no backup is made by itself",
    ]


def test_a_span_is_told_in_its_largest_unit() -> None:
    assert [store.shown_age(each) for each in (59, 60, 7300, 86400 * 3)] == ["59 s", "1 min", "2 h", "3 d"]
    assert [store.shown_bytes(each) for each in (999, 1000, 2_500_000)] == ["999 bytes", "1.0 kB", "2.5 MB"]


def test_names_are_times() -> None:
    assert store.name_of(store.seconds_of("20260301T021500Z")) == "20260301T021500Z"
    assert store.seconds_of(store.iso(86400)) == 86400


# -- reaching the server


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        (["71", "/data", "1772331300", "5433", "/run/postgresql", "*", "  5433001         7", "ready   "], 5433),
        (["71", "/data", "1772331300"], 5432),
        (["71", "/data", "1772331300", ""], 5432),
        (None, 5432),
    ],
)
def test_a_server_is_reached_where_it_is_while_another_port_waits(tmp_path: Path, lines: list[str] | None, port: int) -> None:
    if lines is not None:
        (tmp_path / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert server.live_port(str(tmp_path), 5432) == port


# -- bringing back


def test_own_databases_are_told_from_others() -> None:
    assert restore.old_name("lab", days(1)[0]) == "lab_before_20260301T021500Z"
    long = restore.old_name("ä" * 31, days(1)[0])
    assert len(long.encode()) <= restore.NAME_BYTES
    assert long.startswith("ä" * 19 + "_before_")
    assert restore.is_own(long)
    assert restore.is_own("ipyfleet_restore_20260301T021500Z")
    assert not restore.is_own("lab")
    assert not restore.is_own("lab_before_easter")
    assert restore.own_scratch(["lab", "ipyfleet_restore_20260301T021500Z", "ipyfleet_restore_"]) == ["ipyfleet_restore_20260301T021500Z"]


def test_programs_complain_in_one_line() -> None:
    said = "pg_restore: while PROCESSING TOC:\npg_restore: error: could not execute query: ERROR:  no such role\nCommand was: x\n"
    assert server.complaint(said, 1) == "could not execute query: ERROR:  no such role"
    assert server.complaint("", 3) == "exit code 3"


@pytest.fixture
def process() -> Iterator[None]:
    """What the program sets for its process is set back."""
    umask = os.umask(0o022)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    os.umask(umask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def written(folder: Path) -> str:
    path = folder / "backup.json"
    path.write_text(json.dumps(settings(folder / "backups")._asdict()))
    return str(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["restore", "lab"], "expected a backup, got none; make one first"),
        (["restore", "lab", "--overwrite=lap"], "overwrite: expected lab, the name of the database once more, got lap"),
        (["restore", "other"], "backup 20260301T021500Z: expected one of its databases (lab), got other"),
    ],
)
def test_what_cannot_be_brought_back_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    path = written(tmp_path)
    (tmp_path / "backups").mkdir()
    if "other" in words:
        made(tmp_path / "backups", *days(1))
    assert ipyfleet_backup.main(["--settings", path, *words]) == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("ipyfleet_backup: ")
    assert out.err.count("\n") == 1
    assert said in out.err


@pytest.mark.usefixtures("process")
def test_settings_that_cannot_be_read_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ipyfleet_backup.main(["--settings", str(tmp_path / "none"), "list"]) == 1
    assert capsys.readouterr().err.startswith(f"ipyfleet_backup: {tmp_path}/none: cannot be read (")
    (tmp_path / "none").write_text('{"port": 1}')
    assert ipyfleet_backup.main(["--settings", str(tmp_path / "none"), "list"]) == 1


@pytest.mark.parametrize("words", [[], ["dril"], ["restore"], ["restore", "lab", "--over", "lab"]])
def test_what_is_typed_wrong_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ipyfleet_backup.main(["--settings", "x", *words])
    assert caught.value.code == 2


# -- in words, on the control node


def test_backups_are_told_in_a_table() -> None:
    known = {"name": "lab"} | backups.report(
        "backups",
        {
            "backups": [
                {
                    "name": days(2)[0],
                    "age_text": "2 h",
                    "size_text": "2.5 MB",
                    "rows": 3,
                    "databases": ["lab", "raw"],
                    "proven": None,
                    "reason": "",
                },
                {
                    "name": days(1)[0],
                    "age_text": "1 min",
                    "size_text": "900 bytes",
                    "rows": 1,
                    "databases": ["lab"],
                    "proven": "2026-03-01",
                    "reason": "",
                },
            ],
            "problems": ["the timer is off"],
        },
    )
    assert backups.text(known).splitlines() == [
        "fleet lab: 2 backups of its database",
        "backup              age       size  rows  databases  proven",
        "20260302T021500Z    2 h     2.5 MB     3  lab, raw   not yet",
        "20260301T021500Z  1 min  900 bytes     1  lab        2026-03-01",
        "database: the timer is off",
    ]


def test_what_was_brought_back_is_told_in_a_line() -> None:
    restored = {"database": "lab", "backup": "B", "rows": 3, "tables": 1, "roles": ["r"], "kept": "lab_before", "check": False}
    said = backups.text(backups.report("restored", restored))
    assert said.startswith(
        "database lab is back from backup B: 3 rows in 1 tables; roles made for it: r; what was there is kept as lab_before,"
    )
    assert "would be brought back" in backups.text(backups.report("restored", restored | {"check": True}))


def test_all_of_the_program_is_installed() -> None:
    role = ROOT / "roles" / "postgresql"
    listed = yaml.safe_load((role / "vars" / "main.yml").read_text())["__postgresql_backup_programs"]
    assert listed == sorted(path.name for path in role.glob("files/ipyfleet_backup*.py"))
