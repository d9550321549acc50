# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: a certificate of the fleet's own authority. Control node only."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import Request, request
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import store
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import CertificateProblem, read
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.claims import exclusive
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.issuing import DAYS, RENEW_BEFORE_DAYS, certificate_for
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError

OPTIONS = {
    "fleet": {"type": "dict", "required": True},
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["server", "client"], "default": "server"},
    "dns": {"type": "list", "elements": "str", "default": []},
    "ips": {"type": "list", "elements": "str", "default": []},
    "common_name": {"type": "str", "default": ""},
    "days": {"type": "int", "default": DAYS},
    "renew_before_days": {"type": "int", "default": RENEW_BEFORE_DAYS},
}


class ActionModule(ActionBase):
    """Keeps authority and certificates in the folder of the fleet's keys; hosts get what their role puts there."""

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(OPTIONS)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the certificate that is kept, or a new one when that is not good any more."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(OPTIONS)
        name = options["name"]
        names = [str(plain(each)) for each in (*options["dns"], *options["ips"])]
        try:
            wanted = request(options["kind"], options["common_name"], names, options["days"], options["renew_before_days"])
            return result | self.have(options["fleet"], name, wanted)
        except CertificateProblem as problem:
            return result | {"failed": True, "msg": f"{name}: {problem}"}
        except StoreError as problem:
            return result | {"failed": True, "msg": str(problem)}

    def have(self, fleet: dict[str, Any], name: str, wanted: Request) -> dict[str, Any]:
        """The task's result, which has a key in it and so is shown to nobody."""
        keys = store(fleet["secrets_dir"], self._loader.get_text_file_contents)
        dry = bool(self._task.check_mode)
        with nullcontext() if dry else exclusive(Path(fleet["secrets_dir"])):
            issued = certificate_for(keys, fleet["name"], name, wanted, datetime.now(UTC).replace(microsecond=0), dry)
        said = read(issued.pair.certificate)
        return {
            "changed": bool(issued.reason) or issued.renewed,
            "reason": issued.reason,
            "certificate": issued.pair.certificate,
            "key": issued.pair.key,
            "ca": issued.ca,
            "serial": said.serial,
            "fingerprint": said.fingerprint,
            "not_after": said.not_after.isoformat(),
            "not_after_before": issued.before.not_after.isoformat() if issued.before else "",
            "warnings": [issued.warning] if issued.warning else [],
            "_ansible_no_log": True,
        }
