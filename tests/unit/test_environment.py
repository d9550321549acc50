"""The Python environment: what it is known by, how it is packed, and how a host takes it."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_env as env
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import environment
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.environment import (
    Builder,
    EnvironmentProblem,
    Platform,
    lock_digest,
    pack,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import Locks
from conftest import ROOT

HERE = "{}.{}".format(*sys.version_info[:2])

# -- the control node's side


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (Platform("3.11", "x86_64", "glibc 2.36"), "x86_64-manylinux_2_36"),
        (Platform("3.13", "x86_64", "glibc 2.41"), "x86_64-manylinux_2_40"),
        (Platform("3.11", "aarch64", "glibc 2.34"), "aarch64-manylinux_2_34"),
        (Platform("3.11", "x86_64", "glibc 2.29"), "x86_64-manylinux_2_28"),
        (Platform("3.11", "x86_64", "musl"), "x86_64-unknown-linux-musl"),
        (Platform("3.11", "arm64", "", "Darwin"), "aarch64-apple-darwin"),
    ],
)
def test_platforms_as_uv_calls_them(platform: Platform, expected: str) -> None:
    assert platform.uv_name == expected


def test_the_digest_of_a_lock_is_of_what_it_pins() -> None:
    one = "# comment\nnumpy==2.0\npandas==3.0\n"
    assert lock_digest(one) == lock_digest("pandas==3.0\n\nnumpy==2.0")
    assert lock_digest(one) != lock_digest("numpy==2.1\npandas==3.0\n")


def test_the_lock_that_is_shipped_pins_everything_with_hashes() -> None:
    lines = (ROOT / "environment" / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in pins)
    wanted = (ROOT / "environment" / "requirements.in").read_text().splitlines()
    assert {line.split("~")[0] for line in wanted if line} <= {line.split("==")[0] for line in pins}
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)


class FakeBuilder(Builder):
    """Resolves without a network."""

    def __init__(self, folder: Path) -> None:
        (folder / "in").write_text("ipyparallel\n")
        (folder / "lock").write_text("ipyparallel==9\n")
        (folder / "known").write_text("ipyparallel==9\n")
        super().__init__(folder / "in", folder / "lock", folder / "known", folder / "cache")
        self.resolved: list[str] = []

    def resolve(self, packages: Any, python: str) -> str:
        self.resolved.append(f"{','.join(packages)} {python}")
        return f"ipyparallel==9\n{packages[0]}==1.{len(self.resolved)}\n"


def test_locks_are_made_once_and_kept(tmp_path: Path) -> None:
    builder = FakeBuilder(tmp_path)
    locks = Locks(str(tmp_path / "keys"), builder)
    fleet: dict[str, Any] = {"hosts": {"a": {"packages": ["numpy"]}, "b": {"packages": []}}}
    assert locks.known_digest("") == lock_digest("ipyparallel==9\n")
    assert locks.known_digest("numpy") == ""
    fleet["locks"] = locks.digests(fleet, "3.11")
    assert builder.resolved == ["numpy 3.11"]
    assert locks.known_digest("numpy") == "", "a run that only looks keeps nothing"
    (tmp_path / "keys").mkdir()
    locks.keep(fleet)
    assert locks.known_digest("numpy") == fleet["locks"]["numpy"]
    (tmp_path / "cache" / "locks").rename(tmp_path / "gone")
    assert locks.digests(fleet, "3.11") == fleet["locks"]
    assert builder.resolved == ["numpy 3.11"], "a later run does not upgrade"
    locks.digests(fleet, "3.13")
    assert builder.resolved == ["numpy 3.11", "numpy 3.13"]


def test_without_uv_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentProblem, match="pip install uv"):
        environment.find_uv()


def test_uv_s_reason_is_one_line() -> None:
    said = "  × No solution found when resolving dependencies:\n  ╰─▶ Because nope was not found in the\n      package registry.\n"  # noqa: RUF001
    assert environment.reason(said) == "No solution found when resolving dependencies: Because nope was not found in the package registry."


def test_uv_s_reason_is_about_the_packages() -> None:
    said = (
        "error: No solution found when resolving dependencies for split (markers: python_full_version >= '3.11' and x != 'y')\n"
        "  cause: Because nope was not found in the package registry.\n  hint: The resolution failed for an environment\n"
    )
    expected = "No solution found when resolving dependencies cause: Because nope was not found in the package registry."
    assert environment.reason(said) == expected


def test_pip_s_index_is_used_unless_uv_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "UV_DEFAULT_INDEX", "UV_INDEX", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert environment.pip_index() == {}
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    assert environment.pip_index() == {"UV_DEFAULT_INDEX": "https://mirror/simple"}
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own/simple")
    assert environment.pip_index() == {}


def test_an_archive_is_root_s_and_the_same_each_time(tmp_path: Path) -> None:
    tree = tmp_path / "env"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "tool").write_text("#!/bin/sh\n")
    (tree / "bin" / "tool").chmod(0o700)
    (tree / "secret").write_text("x" * 5000)
    (tree / "secret").chmod(0o600)
    size = pack(tree, tmp_path / "a.tar.gz")
    pack(tree, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert size == 4096 + 8192
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        entries = {entry.name: entry for entry in tar}
    assert all((entry.uid, entry.gid) == (0, 0) for entry in entries.values())
    assert entries["bin/tool"].mode == 0o755
    assert entries["secret"].mode == 0o644


# -- the host's side


@pytest.fixture
def module() -> AnsibleModule:
    with patch_module_args({}):
        return AnsibleModule(argument_spec={})


def archive(folder: Path, lock: str = "aaaa", **more: str) -> dict[str, str]:
    """A small environment, packed; its zmq is only a name."""
    tree = folder / f"tree-{lock}"
    site = tree / "lib" / f"python{HERE}" / "site-packages"
    site.mkdir(parents=True)
    (site / "zmq.py").write_text(f"lock = {lock!r}\n")
    path = folder / f"{lock}.tar.gz"
    pack(tree, path)
    return {"path": str(path), "sha256": env.digest_of(str(path)), "lock": lock, "kind": "tree", "compiled": "yes", **more}


def install(module: AnsibleModule, root: Path, given: dict[str, str]) -> None:
    env.install(module, str(root), given, HERE, env.base_interpreter(""))


def current(root: Path, lock: str) -> bool:
    return env.is_current(str(root), lock, HERE, env.base_interpreter(""))


def test_an_environment_is_installed_and_runs(tmp_path: Path, module: AnsibleModule) -> None:
    root = tmp_path / "root"
    assert not current(root, "aaaa")
    install(module, root, archive(tmp_path))
    assert current(root, "aaaa")
    code, out, _ = module.run_command([str(root / "env" / "bin" / "python"), "-c", "import sys, zmq; print(zmq.lock, sys.prefix)"])
    assert (code, out.split()) == (0, ["aaaa", str(root / "env")])


def test_a_new_lock_takes_its_place_and_the_old_one_goes(tmp_path: Path, module: AnsibleModule) -> None:
    root = tmp_path / "root"
    install(module, root, archive(tmp_path, "aaaa"))
    install(module, root, archive(tmp_path, "bbbb"))
    assert current(root, "bbbb")
    assert not current(root, "aaaa")
    assert [Path(path).name for path in env.leftovers(str(root))] == ["aaaa"]
    env.remove_others(str(root))
    assert [path.name for path in (root / "envs").iterdir()] == ["bbbb"]


def test_an_interrupted_transfer_is_refused_and_changes_nothing(tmp_path: Path, module: AnsibleModule) -> None:
    root = tmp_path / "root"
    install(module, root, archive(tmp_path, "aaaa"))
    given = archive(tmp_path, "bbbb")
    Path(given["path"]).write_bytes(Path(given["path"]).read_bytes()[:-10])
    with pytest.raises(env.EnvironmentFailure, match="did not arrive whole; run again"):
        install(module, root, given)
    assert current(root, "aaaa")


@pytest.mark.parametrize("step", ["unpack", "finish"])
def test_an_interrupted_installation_counts_for_nothing(
    tmp_path: Path, module: AnsibleModule, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    root = tmp_path / "root"
    given = archive(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(env, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            install(module, root, given)
    assert not current(root, "aaaa")
    install(module, root, given)
    assert current(root, "aaaa")
    assert env.leftovers(str(root)) == []


def test_an_archive_for_another_python_is_refused(tmp_path: Path, module: AnsibleModule) -> None:
    with pytest.raises(env.EnvironmentFailure, match=r"not for Python 3\.99"):
        env.install(module, str(tmp_path / "root"), archive(tmp_path), "3.99", env.base_interpreter(""))


def test_an_environment_that_does_not_run_is_refused(tmp_path: Path, module: AnsibleModule) -> None:
    given = archive(tmp_path)
    tree = tmp_path / "tree-aaaa" / "lib" / f"python{HERE}" / "site-packages" / "zmq.py"
    tree.write_text("raise ImportError('libc.so.6: version GLIBC_2.99 not found')\n")
    pack(tmp_path / "tree-aaaa", Path(given["path"]))
    given["sha256"] = env.digest_of(given["path"])
    with pytest.raises(env.EnvironmentFailure, match=r"does not run on this host: ImportError: libc\.so\.6"):
        install(module, tmp_path / "root", given)
    assert not current(tmp_path / "root", "aaaa")


def test_an_environment_whose_interpreter_is_gone_is_not_there(tmp_path: Path, module: AnsibleModule) -> None:
    root = tmp_path / "root"
    install(module, root, archive(tmp_path))
    python = root / "env" / "bin" / "python"
    python.unlink()
    python.symlink_to("/usr/bin/python3.99")
    assert not current(root, "aaaa")


def test_without_bytecode_the_host_compiles(tmp_path: Path, module: AnsibleModule) -> None:
    root = tmp_path / "root"
    install(module, root, archive(tmp_path, compiled="no"))
    assert list((root / "env" / "lib").rglob("zmq.*.pyc"))


def test_without_tar_python_unpacks(tmp_path: Path, module: AnsibleModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda *_, **__: None)
    install(module, tmp_path / "root", archive(tmp_path))
    assert current(tmp_path / "root", "aaaa")


def test_the_stamp_tells_the_lock(tmp_path: Path, module: AnsibleModule) -> None:
    install(module, tmp_path / "root", archive(tmp_path))
    assert json.loads((tmp_path / "root" / "env" / env.STAMP).read_text())["lock"] == "aaaa"
