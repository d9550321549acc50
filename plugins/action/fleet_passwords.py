# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: passwords of the database's accounts. Control node only."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import passwords
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import store
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.claims import exclusive
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError


class ActionModule(ActionBase):
    """Makes a password once for each account that the operator has set none for."""

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("fleet", "given"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a password for each account; the result is shown to nobody."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(
            {"fleet": {"type": "dict", "required": True}, "given": {"type": "dict", "default": {}, "no_log": True}}
        )
        fleet = options["fleet"]
        given: dict[str, Any] = plain(options["given"])  # type: ignore[assignment]  # a mapping stays one
        database = fleet["postgresql"]
        wrong = list(passwords.problems(given, database["user"]))
        if wrong:
            return result | {"failed": True, "msg": "\n".join(wrong)}
        users = [str(user["name"]) for user in database["users"]]
        dry = bool(self._task.check_mode)
        try:
            keys = store(fleet["secrets_dir"], self._loader.get_text_file_contents)
            with nullcontext() if dry else exclusive(Path(fleet["secrets_dir"])):
                known = keys.passwords()
                found = keys.create_passwords(users, given, dry)
        except StoreError as problem:
            return result | {"failed": True, "msg": str(problem)}
        return result | {"changed": bool(found.keys() - known.keys() - given.keys()), "passwords": found, "_ansible_no_log": True}
