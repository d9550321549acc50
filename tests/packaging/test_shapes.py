"""Every shape of the tree runs, from a folder that has nothing but a fleet file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from shapes import FLEET, NOTHING, ROOT, Shape, holds
from test_contents import VERSION

OWN_PLAYBOOK = """
- hosts: ipp_controller:ipp_engine:ipp_client
  gather_facts: false
  roles: [ipyfleet.cluster.ipp_node]
  tasks:
    - ipyfleet.cluster.fleet_prepare: {stage: wanted}
      register: found
    - ansible.builtin.debug:
        msg: "found {{ found.fleet.hosts | list | ipyfleet.cluster.fleet_python }}"
"""
SHORT_NAMES = OWN_PLAYBOOK.replace("ipyfleet.cluster.", "").replace("  roles:", "  collections: [ipyfleet.cluster]\n  roles:")


def test_a_dry_run_from_anywhere(shape: Shape) -> None:
    said = shape.play("ipyfleet.cluster.site", "--check")
    assert "changed=1" in said.stdout
    assert "failed=0" in said.stdout
    assert sorted(path.name for path in shape.folder.iterdir()) == ["h", "x.fleet.yml"]


def test_a_playbook_of_the_users_own(shape: Shape) -> None:
    (shape.folder / "own.yml").write_text(OWN_PLAYBOOK)
    try:
        said = shape.play("own.yml", "--check")
    finally:
        (shape.folder / "own.yml").unlink()
    assert "found ['localhost']" in said.stdout


def test_a_wrong_fleet_file_is_told_as_in_a_clone(shape: Shape) -> None:
    (shape.folder / "bad.fleet.yml").write_text(FLEET.replace("localhost: 1", "localhost: 0"))
    try:
        said = shape.run("ansible-playbook", "-i", "bad.fleet.yml", "ipyfleet.cluster.site", check=False)
    finally:
        (shape.folder / "bad.fleet.yml").unlink()
    assert said.returncode != 0
    assert "bad.fleet.yml:5: engines.localhost: expected a number of slots from 1 on, or `auto`, got 0" in said.stdout + said.stderr
    assert "Traceback" not in said.stdout + said.stderr


def test_versions_agree(shape: Shape) -> None:
    listed = json.loads(shape.run("ansible-galaxy", "collection", "list", "ipyfleet.cluster", "--format", "json").stdout)
    assert [each["ipyfleet.cluster"]["version"] for each in listed.values()] == [VERSION]
    if shape.name in ("wheel", "editable"):
        assert shape.python("import ipyfleet; print(ipyfleet.__version__)") == VERSION


def test_everything_is_documented(shape: Shape) -> None:
    wanted = {
        "filter": {path.stem for path in ROOT.glob("plugins/filter/*.yml")},
        "inventory": {path.stem for path in ROOT.glob("inventory_plugins/*.py")},
        "module": {path.stem for kind in ("action", "modules") for path in ROOT.glob(f"plugins/{kind}/*.py")},
        "role": {path.parent.parent.name for path in ROOT.glob("roles/*/meta/argument_specs.yml")},
    }
    for kind, names in wanted.items():
        full_names = {f"ipyfleet.cluster.{each}" for each in names}
        if shape.name in ("collection", "wheel"):  # ansible-doc lists no links
            listed = json.loads(shape.run("ansible-doc", "-t", kind, "--list", "--json", "ipyfleet.cluster").stdout)
            assert set(listed) == full_names
        shown = json.loads(shape.run("ansible-doc", "-t", kind, "--json", *full_names).stdout)
        for each in full_names:
            about = shown[each]["entry_points"]["main"] if kind == "role" else shown[each]["doc"]
            assert about["short_description"]
            assert about["options"]


def test_the_documentation_of_the_collection_builds(collection: Shape, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    how = ("--use-current", "--no-indexes", "--squash-hierarchy", "--fail-on-error")
    collection.run("antsibull-docs", "collection", *how, "--dest-dir", tmp_path, "ipyfleet.cluster")
    pages = {path.name for path in tmp_path.glob("*.rst")}
    assert {"fleet_inventory.rst", "fleet_host_module.rst", "fleet_python_filter.rst", "ipp_controller_role.rst"} <= pages
    collection.run("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs", "self", collection.top)


@contextmanager
def deployed(shape: Shape, site: str, teardown: str, extra: Mapping[str, str] = NOTHING) -> Iterator[None]:
    """A fleet on this machine, without root; in the end, nothing is left of it."""
    try:
        said = shape.play(site, extra=extra)
        assert "fleet shapes: 1 of 1 engine slots answered" in said.stdout
        yield
        shape.play(teardown, "-e", "teardown_data=true", "-e", "teardown_keys=true", extra=extra)
    finally:
        left = shape.take_away()
    assert not left
    assert not (shape.folder / "h" / ".local" / "share" / "ipyfleet" / "shapes").exists()
    assert not (shape.folder / ".ipyfleet" / "shapes").exists()


def test_the_collection_deploys(collection: Shape) -> None:
    with deployed(collection, "ipyfleet.cluster.site", "ipyfleet.cluster.teardown"):
        again = collection.play("ipyfleet.cluster.site")
    assert re.search(r"changed=0\s", again.stdout)


def test_the_wheel_deploys_by_path(installed: Shape) -> None:
    """As the package does it: playbooks by their paths, with what `content.environ` says."""
    code = "from ipyfleet import content as c; import json; print(json.dumps([*map(str, map(c.playbook, WANTED)), c.environ()]))"
    site, teardown, environ = json.loads(installed.python(f"WANTED = 'site', 'teardown'; {code}"))
    assert Path(site) == installed.top / "playbooks" / "site.yml"
    with deployed(installed, site, teardown, environ):
        pass


@pytest.mark.parametrize("name", ["installed", "editable"])
def test_the_command_runs(name: str, request: pytest.FixtureRequest) -> None:
    shape: Shape = request.getfixturevalue(name)
    assert VERSION in shape.run("ipyfleet", "--version").stdout
    assert "1 host would change" in shape.run("ipyfleet", "up", "--check", "-i", "x.fleet.yml").stdout


@pytest.mark.parametrize("name", ["installed", "editable"])
def test_ipyparallel_finds_the_launchers(name: str, request: pytest.FixtureRequest) -> None:
    shape: Shape = request.getfixturevalue(name)
    code = "import ipyparallel as ipp; c = ipp.Cluster(controller='fleet', engines='fleet'); print(c.engine_launcher_class.__module__)"
    assert shape.python(code) == "ipyfleet.launchers"


def test_nothing_was_written_into_the_installation(installed: Shape) -> None:
    site = installed.top.parents[2]
    assert installed.run("touch", site / "x", check=False).returncode != 0
    before = holds(site)
    installed.play("ipyfleet.cluster.site", "--check")
    assert holds(site) == before
    assert not list(site.glob("ansible_collections/**/__pycache__"))


def test_the_package_ansible_may_hide_the_namespace(installed: Shape, tmp_path: Path) -> None:
    """PyPI's `ansible` makes ansible_collections an ordinary package; where it comes first, other parts are not importable."""
    (tmp_path / "ansible_collections").mkdir()
    (tmp_path / "ansible_collections" / "__init__.py").touch()
    hidden = {"PYTHONPATH": str(tmp_path)}
    assert installed.run("python", "-c", "import ansible_collections.ipyfleet", check=False, extra=hidden).returncode != 0
    assert installed.run("python", "-c", "from ipyfleet import content; print(content.tree())", extra=hidden).stdout.strip() == str(
        installed.top
    )
    assert "changed=1" in installed.play("ipyfleet.cluster.site", "--check", extra=hidden).stdout


def test_an_editable_install_is_never_stale(editable: Shape) -> None:
    playbook, role, galaxy = (editable.top / name for name in ("playbooks/site.yml", "roles/ipp_node/tasks/main.yml", "galaxy.yml"))
    role.write_text(role.read_text() + "\n- name: A task of today\n  ansible.builtin.debug:\n    msg: today\n")
    listed = editable.play("ipyfleet.cluster.site", "--list-tasks").stdout
    assert "A task of today" in listed
    assert editable.python("from ipyfleet import content; print(content.playbook('site'))") == str(playbook)
    galaxy.write_text(galaxy.read_text().replace(f"version: {VERSION}", "version: 99.0.0"))
    try:
        assert editable.python("import ipyfleet; print(ipyfleet.__version__)") == "99.0.0"
        assert "99.0.0" in editable.run("ansible-galaxy", "collection", "list", "ipyfleet.cluster").stdout
    finally:
        galaxy.write_text(galaxy.read_text().replace("version: 99.0.0", f"version: {VERSION}"))


def test_short_names_work_where_the_collection_is_named(collection: Shape) -> None:
    (collection.folder / "short.yml").write_text(SHORT_NAMES.replace("fleet_python", "ipyfleet.cluster.fleet_python"))
    try:
        said = collection.play("short.yml", "--check")
    finally:
        (collection.folder / "short.yml").unlink()
    assert "found ['localhost']" in said.stdout


def test_an_uninstall_leaves_nothing(editable: Shape, wheel: Path) -> None:
    python = ("--python", editable.programs / "python")
    editable.run("uv", "pip", "install", "--quiet", *python, "--no-deps", "--reinstall", wheel)
    editable.play("ipyfleet.cluster.site", "--check")
    editable.run("uv", "pip", "uninstall", "--quiet", *python, "ipyfleet")
    site = Path(editable.python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    assert not [name for name in os.listdir(site) if name.startswith(("ipyfleet", "_ipyfleet"))]
    assert not [path for path in site.glob("ansible_collections/ipyfleet/**/*") if path.is_file()]
