# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Folders and files of a host, brought to what they should be, each as the user who owns them.

Root never writes, reads or changes modes in a folder that belongs to somebody else: a symbolic
link put there would turn that into any file of the system. Such work is done by a child process
that has become the owner.
"""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import tempfile
import traceback
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_reading import regular_bytes

MASKED = "(secret, not shown)\n"
OTHER_OWNER = "%s: expected a folder of the user %s, got %s; chown it, or move it away"


class TreeError(Exception):
    """Something stands where a file or folder has to go, or cannot be written."""


class Owner:
    """An account of the host, by name; `uid` is None while it does not exist."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.uid: Optional[int] = None
        self.gid: Optional[int] = None
        self.home = ""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return
        self.uid, self.gid, self.home = entry.pw_uid, entry.pw_gid, entry.pw_dir

    @property
    def is_me(self) -> bool:
        """Whether this process already runs as the account."""
        return self.uid == os.geteuid()

    def become(self) -> None:
        """Make this process the account's, for good; nothing when it is already."""
        if not self.is_me:
            os.initgroups(self.name, self.gid or 0)
            os.setgid(self.gid or 0)
            os.setuid(self.uid or 0)


def me() -> str:
    """Name of this process's user."""
    return pwd.getpwuid(os.geteuid()).pw_name


def name_of(uid: int) -> str:
    """Name of the account with this id; empty when there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def login_user() -> str:
    """The user who logged in: behind sudo or doas the one who called it."""
    return os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER") or me()


def expand(path: str, owner: Owner) -> str:
    """A path with its leading ~ replaced by the owner's home: for this process's user, the one it was given."""
    if not path.startswith("~/"):
        return path
    return os.path.expanduser(path) if owner.is_me else owner.home + path[1:]


def account(name: str) -> str:
    """The account that an entry's owner stands for: `root` is who deploys, `login` who logged in."""
    return {"root": me(), "login": login_user()}.get(name, name)


def converge_as(owner: Owner, module: Any, entries: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Converge entries in the name of `owner`; see `Tree.converge`.

    :raises TreeError: with the message of what went wrong.
    """

    def refuse(msg: str, **_: Any) -> None:
        raise TreeError(msg)

    def work() -> List[Dict[str, Any]]:
        # where Ansible's own functions would print a result and exit, in the middle of ours
        module.fail_json = refuse
        return Tree(module, owner).converge(entries)

    usual = module.fail_json
    try:
        return work() if owner.is_me else list(in_child(owner, work))
    finally:
        module.fail_json = usual


def in_child(owner: Owner, work: Callable[[], Any]) -> Any:
    """Run `work` in a process that has become `owner`, and return its result, which must be JSON.

    :raises TreeError: with the message of what went wrong there.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            owner.become()
            os.environ["HOME"] = owner.home
            os.chdir("/")
            answer: Dict[str, Any] = {"result": work()}
        except TreeError as error:
            answer = {"error": str(error)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with os.fdopen(writer, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    got = json.loads(text) if text else {"error": "the child process that works as %s died" % owner.name}
    if "error" in got:
        raise TreeError(got["error"])
    return got["result"]


class Tree:
    """Converges entries of one owner; with `check_mode` of the module it only says what it would do."""

    def __init__(self, module: Any, owner: Owner) -> None:
        self.module = module
        self.owner = owner
        self.changes: List[Dict[str, Any]] = []

    def converge(self, entries: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Bring every entry about, in order, and return the changes.

        An entry has `path`, `mode` and `kind`: ``directory`` (an existing one is left as it is when
        `keep`), ``file`` (with `content`; `mark` is in every content that is the fleet's own; one
        that is there is left as it is when `once`),
        ``link`` (with `target`) or ``absent`` (a folder only when it is empty).
        """
        os.umask(0o077)
        for entry in entries:
            try:
                getattr(self, entry["kind"])(entry)
            except OSError as error:
                raise TreeError("%s: %s" % (entry["path"], error.strerror or error)) from error
        return self.changes

    def note(self, path: str, what: str, **more: Any) -> None:
        """Note a change."""
        self.changes.append({"path": path, "what": what, **more})

    def directory(self, entry: Dict[str, Any]) -> None:
        """A folder."""
        path = entry["path"]
        if os.path.lexists(path):
            if os.path.islink(path) or not os.path.isdir(path):
                raise TreeError("%s: expected a folder, got something else; move it away" % path)
            if not entry.get("keep"):
                refuse_other_owner(path, self.owner)
                self.attributes(entry)
            return
        self.note(path, "create folder")
        if self.module.check_mode:
            return
        if not entry.get("give_to"):
            os.mkdir(path, 0o700)
            self.attributes(entry, quiet=True)
            return
        # given away before it has its name: a run that is cut off leaves no folder of root's there
        new = tempfile.mkdtemp(prefix=".ipyfleet-", dir=os.path.dirname(path))
        try:
            self.attributes({**entry, "path": new}, quiet=True)
            os.rename(new, path)
        finally:
            if os.path.exists(new):
                os.rmdir(new)

    def file(self, entry: Dict[str, Any]) -> None:
        """A file: written beside and renamed into place."""
        path, content = entry["path"], entry["content"]
        if entry.get("once") and os.path.lexists(path):
            return
        before = read_regular(path)
        if before == content:
            self.attributes(entry)
            return
        diff = {"before": before or "", "after": content}
        if entry.get("secret"):
            diff = {"before": "" if before is None else MASKED.replace("not", "another, not"), "after": MASKED}
        more = {"secret": bool(entry.get("secret")), "foreign": bool(before) and entry.get("mark", "") not in str(before)}
        # there may be something that cannot be read, or that is no file
        self.note(path, "change file" if os.path.lexists(path) else "create file", diff=diff, **more)
        if not self.module.check_mode:
            handle, new = tempfile.mkstemp(prefix=".ipyfleet-", dir=os.path.dirname(path))
            try:
                with os.fdopen(handle, "w") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.chmod(new, int(entry["mode"], 8))
                self.module.atomic_move(new, path)
            finally:
                if os.path.exists(new):
                    os.unlink(new)
            self.attributes(entry, quiet=True)

    def link(self, entry: Dict[str, Any]) -> None:
        """A symbolic link."""
        path, target = entry["path"], entry["target"]
        if os.path.islink(path) and os.readlink(path) == target:
            return
        if os.path.isdir(path) and not os.path.islink(path):
            raise TreeError("%s: expected a link, got a folder; move it away" % path)
        self.note(path, "link to %s" % target)
        if not self.module.check_mode:
            new = "%s.ipyfleet-new" % path
            if os.path.lexists(new):
                os.unlink(new)
            os.symlink(target, new)
            os.replace(new, path)

    def absent(self, entry: Dict[str, Any]) -> None:
        """Nothing: a file, a link or an empty folder is removed."""
        path = entry["path"]
        folder = os.path.isdir(path) and not os.path.islink(path)
        if not os.path.lexists(path) or (folder and os.listdir(path)):
            return
        self.note(path, "remove")
        if not self.module.check_mode:
            os.rmdir(path) if folder else os.unlink(path)

    def account(self, name: Optional[str]) -> str:
        """The account that an entry belongs to in the end: the owner, unless it is given away."""
        return self.owner.name if name in (None, "", "root") else str(name)

    def attributes(self, entry: Dict[str, Any], quiet: bool = False) -> None:
        """Owner, group and mode, by Ansible's own means."""
        owner = self.account(entry.get("give_to"))
        if self.module.check_mode and (Owner(owner).uid is None or not group_exists(entry.get("group"))):
            # an account that is yet to be made, and a folder that it once had
            self.note(entry["path"], "set owner")
            return
        arguments = self.module.load_file_common_arguments(
            {
                "path": entry["path"],
                "mode": entry["mode"],
                "owner": owner,
                "group": entry.get("group"),
            }
        )
        diff: Dict[str, Any] = {}
        changed = self.module.set_fs_attributes_if_different(arguments, False, diff)
        if changed and not quiet:
            self.note(entry["path"], "set %s" % ", ".join(sorted(set(diff.get("after", {})) - {"path"})))


def group_exists(name: Optional[str]) -> bool:
    """Whether the host has a group; none that is asked for counts as one."""
    try:
        return not name or bool(grp.getgrnam(name))
    except KeyError:
        return False


def read_regular(path: str) -> Optional[str]:
    """Text of a regular file; None when there is none, or anything else in its place.

    :raises TreeError: when a folder stands there.
    """
    try:
        return regular_bytes(path).decode("utf-8", "replace")
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise TreeError("%s: expected a file, got a folder; move it away" % path) from error
        return None  # replaced by rename


def refuse_other_owner(path: str, owner: Owner) -> None:
    """Only root can give a folder to somebody else.

    :raises TreeError: when this process is another user, and `path` is not the one's of `owner`.
    """
    there = os.lstat(path).st_uid
    if os.geteuid() and there != owner.uid:
        raise TreeError(OTHER_OWNER % (path, owner.name, "one of the user with id %d" % there))


def missing_owner(owner: Owner, entries: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The changes that entries of an account that does not exist yet will be."""
    changes = []
    for entry in entries:
        if entry["kind"] == "absent":
            continue
        if entry["kind"] == "directory" and os.path.isdir(entry["path"]):
            raise TreeError(OTHER_OWNER % (entry["path"], owner.name, "another one"))
        what = "create folder" if entry["kind"] == "directory" else "create file"
        change: Dict[str, Any] = {"path": entry["path"], "what": what}
        if entry["kind"] == "file":
            change["diff"] = {"before": "", "after": MASKED if entry.get("secret") else entry["content"]}
        changes.append(change)
    return changes


def diff_of(changes: List[Dict[str, Any]]) -> List[Dict[str, str]]:
    """Changes as Ansible shows differences."""
    found = [
        {"before_header": each["path"], "after_header": each["path"], "before": each["diff"]["before"], "after": each["diff"]["after"]}
        for each in changes
        if "diff" in each
    ]
    others = "".join("%s: %s\n" % (each["what"], each["path"]) for each in changes if "diff" not in each)
    return found + ([{"prepared": others}] if others else [])
