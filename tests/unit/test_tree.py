"""Folders and files of a host, in every state that they can be found in."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree

ME = pwd.getpwuid(os.getuid()).pw_name
Converge = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def converge() -> Converge:
    """Converge entries as the user who runs the tests; `check` only looks."""

    def run(*entries: dict[str, Any], check: bool = False, owner: str = ME) -> list[dict[str, Any]]:
        with patch_module_args({}):
            module = AnsibleModule(argument_spec={}, supports_check_mode=True)
        module.check_mode = check
        return tree.converge_as(tree.Owner(owner), module, [dict(entry) for entry in entries])

    return run


def file_at(path: Path, content: str = "new\n", mode: str = "0600", **more: Any) -> dict[str, Any]:
    return {"kind": "file", "path": str(path), "content": content, "mode": mode, **more}


def whats(changes: list[dict[str, Any]]) -> list[str]:
    return [change["what"] for change in changes]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_absent_file_is_written(tmp_path: Path, converge: Converge) -> None:
    entry = file_at(tmp_path / "a")
    assert whats(converge(entry, check=True)) == ["create file"]
    assert not (tmp_path / "a").exists()
    (change,) = converge(entry)
    assert change["diff"] == {"before": "", "after": "new\n"}
    assert (tmp_path / "a").read_text() == "new\n"
    assert mode_of(tmp_path / "a") == 0o600
    assert converge(entry) == []


def test_a_drifted_file_is_put_right(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "a").write_text("by hand\n")
    (change,) = converge(file_at(tmp_path / "a"), check=True)
    assert change["diff"] == {"before": "by hand\n", "after": "new\n"}
    assert (tmp_path / "a").read_text() == "by hand\n"
    converge(file_at(tmp_path / "a"))
    assert (tmp_path / "a").read_text() == "new\n"


@pytest.mark.parametrize("more", [{"group": "nobody-has-this-group"}, {"give_to": "nobody-has-this-name"}])
def test_an_account_or_group_that_is_yet_to_be_made_is_a_change(tmp_path: Path, converge: Converge, more: dict[str, str]) -> None:
    (change,) = converge({"kind": "directory", "path": str(tmp_path), "mode": "0750", **more}, check=True)
    assert change == {"path": str(tmp_path), "what": "set owner"}


def test_a_file_that_is_written_once_is_its_reader_s_from_then_on(tmp_path: Path, converge: Converge) -> None:
    entry = file_at(tmp_path / "a", "first\n", once=True)
    assert whats(converge(entry)) == ["create file"]
    (tmp_path / "a").write_text("mine\n")
    (tmp_path / "a").chmod(0o644)
    assert converge(entry | {"content": "second\n"}) == []
    assert ((tmp_path / "a").read_text(), mode_of(tmp_path / "a")) == ("mine\n", 0o644)
    (tmp_path / "a").unlink()
    assert whats(converge(entry | {"content": "second\n"})) == ["create file"]
    assert (tmp_path / "a").read_text() == "second\n"


def test_a_half_written_file_of_an_interrupted_run_does_not_matter(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / ".ipyfleet-abc").write_text("ne")
    (tmp_path / "a").write_text("ne")
    converge(file_at(tmp_path / "a"))
    assert (tmp_path / "a").read_text() == "new\n"


def test_a_wrong_mode_is_put_right_without_writing(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "a").write_text("new\n")
    (tmp_path / "a").chmod(0o644)
    inode = (tmp_path / "a").stat().st_ino
    assert whats(converge(file_at(tmp_path / "a"), check=True)) == ["set mode"]
    assert mode_of(tmp_path / "a") == 0o644
    assert whats(converge(file_at(tmp_path / "a"))) == ["set mode"]
    assert mode_of(tmp_path / "a") == 0o600
    assert (tmp_path / "a").stat().st_ino == inode


def test_a_file_is_never_readable_by_others_while_it_is_written(
    tmp_path: Path, converge: Converge, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = AnsibleModule.atomic_move

    def spy(self: AnsibleModule, src: str, dest: str, **more: Any) -> None:
        seen.append(mode_of(Path(src)))
        real(self, src, dest, **more)

    monkeypatch.setattr(AnsibleModule, "atomic_move", spy)
    old = os.umask(0)
    try:
        converge(file_at(tmp_path / "a"))
    finally:
        os.umask(old)
    assert seen == [0o600]


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "precious").write_text("precious\n")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    (change,) = converge(file_at(tmp_path / "a"), check=True)
    assert "precious" not in change["diff"]["before"]
    converge(file_at(tmp_path / "a"))
    assert (tmp_path / "precious").read_text() == "precious\n"
    assert not (tmp_path / "a").is_symlink()


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(tree.TreeError, match="expected a file, got a folder; move it away"):
        converge(file_at(tmp_path / "a"))


def test_secrets_are_never_in_a_difference(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "a").write_text("old key\n")
    (change,) = converge(file_at(tmp_path / "a", "new key\n", secret=True))
    assert "key" not in str(change["diff"])
    assert change["diff"]["before"] != change["diff"]["after"]
    assert change["secret"] is True


def test_a_file_of_another_cluster_is_told_apart(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "a").write_text('{"fleet": "other"}')
    (change,) = converge(file_at(tmp_path / "a", '{"fleet": "lab"}', mark='"fleet": "lab"'), check=True)
    assert change["foreign"] is True
    (tmp_path / "a").write_text('{"fleet": "lab", "old": 1}')
    (change,) = converge(file_at(tmp_path / "a", '{"fleet": "lab"}', mark='"fleet": "lab"'), check=True)
    assert change["foreign"] is False


def test_folders(tmp_path: Path, converge: Converge) -> None:
    entry = {"kind": "directory", "path": str(tmp_path / "d"), "mode": "0750"}
    assert whats(converge(entry)) == ["create folder"]
    assert mode_of(tmp_path / "d") == 0o750
    (tmp_path / "d").chmod(0o777)
    assert whats(converge(entry)) == ["set mode"]
    (tmp_path / "d").chmod(0o777)
    assert converge(entry | {"keep": True}) == []
    assert mode_of(tmp_path / "d") == 0o777


def test_a_file_or_link_in_place_of_a_folder_is_refused(tmp_path: Path, converge: Converge) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(tree.TreeError, match="expected a folder, got something else; move it away"):
            converge({"kind": "directory", "path": str(tmp_path / name), "mode": "0750"})


def test_links(tmp_path: Path, converge: Converge) -> None:
    entry = {"kind": "link", "path": str(tmp_path / "l"), "target": "one"}
    assert whats(converge(entry)) == ["link to one"]
    assert converge(entry) == []
    assert whats(converge(entry | {"target": "two"})) == ["link to two"]
    assert (tmp_path / "l").readlink() == Path("two")


def test_absent(tmp_path: Path, converge: Converge) -> None:
    entry = {"kind": "absent", "path": str(tmp_path / "a")}
    assert converge(entry) == []
    (tmp_path / "a").write_text("")
    assert whats(converge(entry, check=True)) == ["remove"]
    assert (tmp_path / "a").exists()
    assert whats(converge(entry)) == ["remove"]
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "theirs").write_text("")
    assert converge(entry) == []


def test_a_full_or_read_only_place_is_one_line(tmp_path: Path, converge: Converge) -> None:
    with pytest.raises(tree.TreeError, match=r"none/a: No such file or directory$"):
        converge(file_at(tmp_path / "none" / "a"))


needs_root = pytest.mark.skipif(os.getuid() != 0, reason="changing users needs root; tests of the scenarios do it on hosts as well")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_root
def test_a_file_of_another_user_is_written_in_their_name(open_path: Path, converge: Converge) -> None:
    theirs = open_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)
    converge(file_at(theirs / "a"), owner="nobody")
    assert (theirs / "a").owner() == "nobody"


@needs_root
def test_a_folder_of_another_user_cannot_lead_root_elsewhere(open_path: Path, converge: Converge) -> None:
    theirs = open_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, pwd.getpwnam("nobody").pw_uid, -1)
    precious = open_path / "precious"
    precious.mkdir(mode=0o700)
    (theirs / "security").symlink_to(precious)
    with pytest.raises(tree.TreeError):
        converge(file_at(theirs / "security" / "a"), owner="nobody")
    assert list(precious.iterdir()) == []


def test_entries_of_a_user_who_does_not_exist_yet() -> None:
    entries = [{"kind": "directory", "path": "/d"}, file_at(Path("/d/a"), secret=True), {"kind": "absent", "path": "/d/b"}]
    changes = tree.missing_owner(tree.Owner("ipyfleet-new"), entries)
    assert whats(changes) == ["create folder", "create file"]
    assert changes[1]["diff"]["after"] == tree.MASKED


def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    folder = {"kind": "directory", "path": str(tmp_path), "mode": "0700"}
    with pytest.raises(tree.TreeError, match=rf"^{tmp_path}: expected a folder of the user ipyfleet-new, got another one; chown it,"):
        tree.missing_owner(tree.Owner("ipyfleet-new"), [folder])


def test_a_folder_that_is_given_away_is_never_there_under_its_name_before(
    tmp_path: Path, converge: Converge, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"kind": "directory", "path": str(tmp_path / "given"), "mode": "0700", "give_to": ME}

    def cut_off(*_: Any, **__: Any) -> None:
        raise tree.TreeError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(tree.Tree, "attributes", cut_off)
        with pytest.raises(tree.TreeError, match="cut off"):
            converge(entry)
    assert list(tmp_path.iterdir()) == []
    assert whats(converge(entry)) == ["create folder"]
    assert mode_of(tmp_path / "given") == 0o700
    assert converge(entry) == []
