"""Where the playbooks and roles are, and how Ansible finds them: in a clone, or installed with the package."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipyfleet.errors import InputError, InstallationError

COLLECTION = Path("ansible_collections", "ipyfleet", "cluster")
INVENTORY_PLUGINS = "ipyfleet.cluster.fleet,ipyfleet.cluster.ipcluster_config,ipyfleet.cluster.engines"
OVERRIDE = "IPYFLEET_TREE"
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Option:
    """A setting of Ansible's, and where the user may have made it beside the variable that it is named after."""

    default: str
    sections: tuple[str, ...]
    key: str
    also: str = ""
    kind: str = "string"

    def definition(self, name: str) -> dict[str, Any]:
        """The same in Ansible's words."""
        return {
            "default": self.default,
            "type": self.kind,
            "env": [{"name": each} for each in (name, self.also) if each],
            "ini": [{"section": section, "key": self.key} for section in self.sections],
        }


# set as here, unless the user has set them
DEFAULTS = {
    "ANSIBLE_CALLBACK_RESULT_FORMAT": Option("yaml", ("defaults",), "callback_result_format"),
    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": Option("False", ("defaults",), "display_skipped_hosts"),
    "ANSIBLE_FORKS": Option("64", ("defaults",), "forks"),
    "ANSIBLE_HOST_KEY_CHECKING": Option("True", ("defaults", "ssh_connection"), "host_key_checking", also="ANSIBLE_SSH_HOST_KEY_CHECKING"),
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": Option("True", ("inventory",), "any_unparsed_is_failed"),
    "ANSIBLE_PIPELINING": Option("True", ("defaults", "connection", "ssh_connection"), "pipelining", also="ANSIBLE_SSH_PIPELINING"),
    "ANSIBLE_PYTHON_INTERPRETER": Option("auto_silent", ("defaults",), "interpreter_python"),
    "ANSIBLE_SSH_ARGS": Option(
        "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=15 -o ServerAliveCountMax=3", ("ssh_connection",), "ssh_args"
    ),
}
# ours first, then what the user has set; these are Ansible's defaults
EXTENDED = {
    "ANSIBLE_COLLECTIONS_PATH": Option(
        "{home}/collections:/usr/share/ansible/collections", ("defaults",), "collections_path", kind="pathspec"
    ),
    "ANSIBLE_INVENTORY_ENABLED": Option("host_list, script, auto, yaml, ini, toml", ("inventory",), "enable_plugins", kind="list"),
    "ANSIBLE_ROLES_PATH": Option("{home}/roles:/usr/share/ansible/roles:/etc/ansible/roles", ("defaults",), "roles_path", kind="pathspec"),
}


def tree() -> Path:
    """The top folder: the one with ``playbooks`` and ``roles``.

    It is what the variable IPYFLEET_TREE names, else the clone that this package is in, else the
    collection that was installed with the package. That one is looked for by its path, since the
    package `ansible` of PyPI hides other parts of ``ansible_collections`` from imports.

    :raises InstallationError: when there is none.
    """
    if given := os.environ.get(OVERRIDE):
        if not is_tree(Path(given)):
            raise InstallationError(f"{OVERRIDE}: expected a clone of ipyfleet or an installed collection, got {given}")
        return Path(given).absolute()
    if clone := clone_folder():
        return clone
    beside = [PACKAGE.parent, *(Path(each or os.curdir) for each in sys.path)]
    for folder in beside:
        if is_tree(folder / COLLECTION):
            return (folder / COLLECTION).absolute()
    raise InstallationError(f"expected {COLLECTION} beside {PACKAGE}, got none; install ipyfleet again, or set {OVERRIDE}")


def is_tree(folder: Path) -> bool:
    """Whether a folder is a clone or the collection."""
    return (folder / "playbooks" / "site.yml").is_file() and (folder / "roles").is_dir()


def clone_folder() -> Path | None:
    """The clone that this package is in, if it is in one."""
    clone = PACKAGE.parents[1]
    return clone if (clone / "galaxy.yml").is_file() and is_tree(clone) else None


def version() -> str:
    """The version of this package; in a clone that of ``galaxy.yml``, however old the installation is."""
    if clone := clone_folder():
        found = re.search(r"^version: (\S+)$", (clone / "galaxy.yml").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return importlib.metadata.version("ipyfleet")


def playbook(name: str) -> Path:
    """Path of a playbook.

    :param name: without folder and suffix, such as ``site``.
    :raises InputError: when there is no such playbook; the message names those that there are.
    :raises InstallationError: when there are no playbooks at all.
    """
    known = {path.stem: path for path in sorted((tree() / "playbooks").glob("*.yml"))}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError([f"playbook: expected one of {', '.join(known)}, got {name}{hint}"])
    return known[name]


def environ() -> dict[str, str]:
    """Variables with which ``ansible-playbook`` finds everything, from any folder; for `os.environ` to be updated by.

    The user's settings win, be they in the environment or in the ansible.cfg that Ansible would read
    here: those of `DEFAULTS` are what ipyfleet sets otherwise. A setting is returned in either case,
    since who starts Ansible may have defaults of its own; ansible-runner has, and checks no host keys.
    Our collection, our roles and our inventory plugins come before the user's. Everything else in the
    user's ansible.cfg is left alone; ANSIBLE_CONFIG names that file, for a start in another folder.

    :raises InstallationError: when Ansible is not there, or its configuration cannot be read.
    """
    top = tree()
    collections = top.parents[2] if top.parts[-3:] == COLLECTION.parts else top / "collections"
    first = {
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_INVENTORY_ENABLED": INVENTORY_PLUGINS,
        "ANSIBLE_ROLES_PATH": str(top / "roles"),
    }
    used, config_file = settings()
    found = {name: str(used[name]) for name in DEFAULTS}
    for name, ours in first.items():
        separator = "," if EXTENDED[name].kind == "list" else os.pathsep
        found[name] = separator.join(dict.fromkeys([*ours.split(separator), *used[name]]))
    return found | ({"ANSIBLE_CONFIG": config_file} if config_file else {})


def plugin_util(name: str) -> Any:
    """A module of the collection's ``plugin_utils``, for what has no need of a run of Ansible's.

    :raises InstallationError: when Ansible is not there, or the collection.
    """
    path = environ()["ANSIBLE_COLLECTIONS_PATH"]
    from ansible.plugins.loader import init_plugin_loader
    from ansible.utils.collection_loader import AnsibleCollectionConfig

    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader(path.split(os.pathsep)[:1])
    return importlib.import_module(f"{'.'.join(COLLECTION.parts)}.plugins.plugin_utils.{name}")


def settings() -> tuple[dict[str, Any], str]:
    """The settings that Ansible would use here, and the path of its configuration file, empty when there is none.

    :raises InstallationError: when Ansible is not there, or its configuration cannot be read.
    """
    try:
        from ansible.config.manager import ConfigManager
        from ansible.errors import AnsibleError
    except ImportError as error:
        raise InstallationError(f"expected ansible-core 2.19 in {sys.prefix}, got: {error}; install ipyfleet again") from error
    try:
        config = ConfigManager()
        home = config.get_config_value("ANSIBLE_HOME")
        definitions = {name: option.definition(name) for name, option in (DEFAULTS | EXTENDED).items()}
        for each in definitions.values():
            each["default"] = each["default"].replace("{home}", home)
        config.initialize_plugin_configuration_definitions("ipyfleet", "settings", definitions)
        used = config.get_plugin_options("ipyfleet", "settings")
        return used, str(config.get_config_value("CONFIG_FILE") or "")
    except AnsibleError as error:
        raise InstallationError(f"expected a configuration that Ansible can read, got: {' '.join(str(error).split())}") from error
