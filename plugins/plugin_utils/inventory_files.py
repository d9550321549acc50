# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What inventory plugins have in common: a YAML file is read with its lines, and a wrong one ends the run."""

from __future__ import annotations

from typing import Any, NoReturn

import yaml
from ansible import context
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Positions, positions

display = Display()


def read_yaml(path: str, loader: DataLoader) -> tuple[Any, Positions]:
    """Content of an inventory file, and where its keys stand.

    :raises SystemExit: or AnsibleParserError, as `refuse` does, when it is not YAML.
    """
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    try:
        where = positions(text)
        return loader.load_from_file(path, cache="none", trusted_as_template=True), where
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or error
        refuse(path, [f"{path}:{mark.line + 1 if mark else 1}: expected YAML, got: {problem}"])
    except AnsibleError as error:
        refuse(path, [f"{path}:1: expected YAML, got: {error.message}"])


def refuse(path: str, problems: list[str]) -> NoReturn:
    """End the run with one line a problem.

    Ansible would go on to try the file as YAML and INI inventory, bury the reason under their
    complaints and, unless configured otherwise, run a playbook on no host and exit with 0.

    :raises SystemExit: in one of Ansible's commands.
    :raises AnsibleParserError: in any other program.
    """
    if not context.CLIARGS:
        raise AnsibleParserError("\n".join(problems))
    for problem in problems:
        display.error(problem, wrap_text=False)
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    display.error(f"{path}: {count}; nothing was changed", wrap_text=False)
    raise SystemExit(1)
