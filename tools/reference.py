"""Write docs/reference.md from the argument specs of the roles and the inventory plugin's documentation.

    reference.py [--check]

With --check, nothing is written, and the exit code says whether the page is up to date.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"
ROLES = ("ipp_node", "ipp_controller", "ipp_engine", "ipp_client", "jupyterlab", "postgresql", "fleet_ca")


def plain(text: object) -> str:
    """Ansible's markup as Markdown, in one line."""
    parts = text if isinstance(text, list) else [text]
    said = " ".join(str(part) for part in parts)
    said = re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", said)
    return said.replace("|", "\\|").replace("\n", " ").strip()


def default(option: dict[str, Any]) -> str:
    """How a default is shown."""
    if option.get("required"):
        return "*required*"
    if "default" not in option:
        return ""
    value: object = option["default"]
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown}`" if value not in ("", None) else "empty"


def kind(option: dict[str, Any]) -> str:
    """Type of an option, with its choices."""
    found = str(option["type"]) + (f" of {option['elements']}" if "elements" in option else "")
    return found + (": " + ", ".join(f"`{each}`" for each in option["choices"]) if "choices" in option else "")


def table(options: dict[str, dict[str, Any]]) -> list[str]:
    """Options as a Markdown table."""
    rows = ["| name | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        rows.append(f"| `{name}` | {kind(option)} | {default(option)} | {plain(option['description'])} |")
    return rows


def inventory_options(name: str) -> dict[str, dict[str, Any]]:
    """Options of an inventory plugin."""
    tree = ast.parse((ROOT / "inventory_plugins" / f"{name}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "DOCUMENTATION":
            options = yaml.safe_load(ast.literal_eval(node.value))["options"]
            return {name: {"type": "str", **option} for name, option in options.items()}
    raise ValueError(f"the inventory plugin {name} has no documentation")


def page() -> str:
    """The whole page."""
    lines = ["# Reference", "", "Made by `tools/reference.py` from the argument specs; do not edit.", ""]
    lines += ["## The fleet file", "", *table(inventory_options("fleet")), ""]
    lines += ["Beside these: `compose`, `groups`, `keyed_groups` and `strict`, as in every constructed inventory.", ""]
    lines += ["## A file of live engines", "", *table(inventory_options("engines")), ""]
    lines += ["Beside these: the same, and `cache`, `cache_plugin`, `cache_timeout`, `cache_connection` and `cache_prefix`.", ""]
    for role in ROLES:
        spec = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]
        lines += [f"## Role {role}", "", f"{spec['short_description']}.", "", *table(spec["options"]), ""]
    return "\n".join(lines)


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.exists() and PAGE.read_text() == text:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is not up to date: run tools/reference.py", file=sys.stderr)
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
