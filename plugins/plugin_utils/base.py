# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the action plugins have in common: where things are, and how variables are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.environment import Builder
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.places import places
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore, StoreError

# the clone's or the collection's top folder, through the links of a clone
ROOT = Path(__file__).resolve().parents[2]


def builder() -> Builder:
    """Locks and archives of this collection's environment, kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipyfleet"
    folder = ROOT / "environment"
    return Builder(folder / "requirements.in", folder / "requirements.lock", folder / "known.lock", cache)


def secrets_dir(variables: Mapping[str, Any]) -> str:
    """Folder of a fleet's keys: as set, else beside the inventory; empty when there is no such place."""
    given = variables.get("fleet_secrets_dir")
    if given:
        path = os.path.expanduser(str(given))
        return path if os.path.isabs(path) else os.path.join(str(variables.get("inventory_dir") or os.getcwd()), path)
    base = variables.get("inventory_dir")
    return os.path.join(str(base), ".ipyfleet", str(variables.get("fleet_name"))) if base else ""


def store(folder: str, read_text: Callable[[str], str]) -> SecretStore:
    """The keys in a folder, which Ansible reads, and decrypts."""

    def read(path: str) -> str:
        try:
            return read_text(path)
        except AnsibleError as error:
            why = error.message.rstrip(".")
            raise StoreError(f"{path}: cannot be read ({why}); if it is in a vault, give its password with --ask-vault-pass") from error

    return SecretStore(Path(folder), read)


class HostAction(ActionBase):
    """An action that evaluates the roles' variables for its host."""

    def enter(self, variables: dict[str, Any]) -> None:
        """Make `evaluate` know these variables, and find out the fleet's `places` on the host."""
        self.templar = self._templar.copy_with_new_env(available_variables=variables)
        fleet = self._task.args["fleet"]
        home = ""
        if fleet["scope"] == "user":
            # by the shell, as IPython would: $HOME, which need not be what the user database says
            home = str(self._low_level_execute_command("echo ~", sudoable=False)["stdout"]).strip()
        accounts = {
            "service": "ipp_node_user",
            "lab": "jupyterlab_user",
            "tunnel": "jupyterlab_tunnel_user",
            "door": "ipp_controller_tunnel_user",
        }
        users = {name: str(self.evaluate(variable)) for name, variable in accounts.items()}
        self.places = places(fleet["scope"], fleet["name"], users, home)

    def evaluate(self, name: str) -> Any:
        """The value of a variable."""
        return self.templar.template(trust_as_template(f"{{{{ {name} }}}}"))

    def by_fleets_python(self, arguments: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """Run the module of this action's name by the Python of the fleet's environment, where the task is delegated to."""
        interpreter = {"ansible_python_interpreter": self.places["env"] + "/bin/python"}
        delegated = {host: each | interpreter for host, each in variables.get("ansible_delegated_vars", {}).items()}
        task_vars = dict(variables) | interpreter | {"ansible_delegated_vars": delegated}
        return dict(self._execute_module(module_name=self._task.action, module_args=dict(arguments), task_vars=task_vars))
