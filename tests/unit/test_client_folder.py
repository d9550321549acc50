"""What is in the folder of a client on this machine: a database behind a tunnel, and the page that leads to JupyterLab."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipyfleet import client_folder
from ipyfleet.client_folder import dsn_of, passwords_text, redirect_text, service_text
from ipyfleet.errors import ClientError

TLS = "[lab]\nhost=db\nhostaddr=10.0.0.9\nport=5432\nuser=a user\nsslmode=verify-full\n"


def test_the_folder_is_in_the_cache_where_there_is_no_better_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert client_folder.base_folder() == tmp_path / "ipyfleet" / "connect"
    (tmp_path / "ipyfleet").touch()
    with pytest.raises(ClientError, match="expected a folder for the client's files, got: Not a directory"):
        client_folder.ClientFolder("lab")


def test_services_verify_the_name_and_go_to_loopback() -> None:
    text = service_text(TLS, "127.0.0.1", 6000, Path("/f"), {"ca.crt": "", "pgpass": ""})
    files = ["passfile=/f/pgpass", "sslrootcert=/f/ca.crt"]
    assert text.splitlines() == ["[lab]", "host=db", "port=6000", "user=a user", "sslmode=verify-full", "hostaddr=127.0.0.1", *files]
    assert dsn_of(text).startswith("host=db port=6000 user='a user' sslmode=verify-full hostaddr=127.0.0.1")
    assert "hostaddr" not in service_text(TLS, "db.local", 6000, Path("/f"), {})
    plain = service_text("[lab]\nhost=127.0.0.1\nport=5\nsslmode=disable\n", "127.0.0.1", 7, Path("/f"), {})
    assert plain.splitlines() == ["[lab]", "host=127.0.0.1", "port=7", "sslmode=disable"]


def test_lines_of_passwords_match_the_port_here() -> None:
    assert passwords_text("#\n# a:1:*\ndb:5432:*:lab:x:5432:y\n", 7) == "#\n# a:1:*\ndb:7:*:lab:x:5432:y\n"
    assert passwords_text("d\\:b:5432:*:lab:x\n", 7) == "d\\:b:7:*:lab:x\n"


def test_the_page_that_leads_to_jupyterlab_keeps_its_address() -> None:
    assert 'url=http://127.0.0.1:1/lab?token=a&amp;b"' in redirect_text("http://127.0.0.1:1/lab?token=a&b")
