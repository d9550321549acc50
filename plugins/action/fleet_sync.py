# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: send people's own code to a host, if it has other code than the folder."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.code import CodeProblem, pack
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import explain, summary, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.jumps import reason


class ActionModule(HostAction):
    """Asks a host first, and sends the archive only where it is needed."""

    TRANSFERS_FILES = True
    _VALID_ARGS = frozenset(("fleet", "src", "exclude"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Bring the folder to the task's host."""
        variables = task_vars or {}
        try:
            return self.carry_out(super().run(tmp, task_vars), variables)
        except CodeProblem as problem:
            return {"failed": True, "msg": str(problem)}
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": unreached(reason(self._connection, error.message))}

    def cleanup(self, force: bool = False) -> None:
        """Leave a host alone that went away; what happened is told already."""
        with contextlib.suppress(AnsibleConnectionFailure):
            super().cleanup(force)

    def carry_out(self, result: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Compare, and send what differs."""
        fleet = self._task.args["fleet"]
        folder = Path(str(self._task.args["src"])).expanduser().absolute()
        digest, archive = pack(folder, [str(each) for each in self._task.args.get("exclude") or ()])
        self.enter(variables)
        arguments = {"root": self.places["root"], "digest": digest, "fleet": fleet["name"], "scope": fleet["scope"]}
        done = self.execute(arguments, variables)
        if done.get("needed") and not (self._task.check_mode or done.get("failed")):
            done = self.execute(arguments | {"archive": self.send(archive)}, variables)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        if done.get("failed"):
            return result | {"failed": True, "msg": explain(done)}
        return result | done | {"msg": summary(done["changes"])}

    def execute(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module."""
        return dict(self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=variables))

    def send(self, archive: bytes) -> str:
        """Put the archive on the host."""
        remote = str(self._connection._shell.join_path(self._make_tmp_path(), "code.tar"))
        with tempfile.NamedTemporaryFile(prefix="ipyfleet-code-") as stream:
            stream.write(archive)
            stream.flush()
            self._transfer_file(stream.name, remote)
        return remote
