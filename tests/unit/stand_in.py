"""Stand-ins for container engines: programs that answer what the real ones would."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipyfleet.lab import engine as engines

StandIn = Callable[..., Path]
ROOTFUL = {"host": {"security": {"rootless": False}, "cgroupVersion": "v1"}}
MAPPED = [{"container_id": 0, "host_id": 1000, "size": 1}, {"container_id": 1, "host_id": 100000, "size": 65536}]
ROOTLESS = {"host": {"security": {"rootless": True}, "cgroupVersion": "v2", "idMappings": {"uidmap": MAPPED}}}


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the test's, and no program but stand-ins."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in (engines.VARIABLE, engines.CONF, "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """Makes a program that answers by the first pattern that its arguments match; returns the log of its calls."""

    def make(name: str, answers: Mapping[str, tuple[int, str, str]]) -> Path:
        path, log = tmp_path / "bin" / name, tmp_path / f"{name}.log"
        lines = [
            f"{pattern.replace(' ', chr(92) + ' ')}) printf %s {shlex.quote(out)}; printf %s {shlex.quote(err)} >&2; exit {rc} ;;"
            for pattern, (rc, out, err) in answers.items()
        ]
        path.write_text("\n".join(["#!/bin/sh", f'echo "$CONTAINERS_CONF $*" >>{shlex.quote(str(log))}', 'case "$*" in', *lines, "esac"]))
        path.chmod(0o755)
        return log

    return make


def info(about: Mapping[str, Any]) -> dict[str, tuple[int, str, str]]:
    return {"info*": (0, json.dumps(about), "")}
