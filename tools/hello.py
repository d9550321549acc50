"""Use a fleet as a person would, and show what is typed and what comes back.

hello.py PROFILE
"""

from __future__ import annotations

import os
import platform
import socket
import sys
import time

import ipyparallel as ipp
from jupyter_server.serverapp import list_running_servers


def main(profile: str) -> None:
    rc = ipp.Client(profile=profile, timeout=10)
    print(f">>> rc = ipp.Client(profile={profile!r})")
    print(f">>> rc.ids\n{rc.ids}")
    print(f">>> rc[:].apply_sync(lambda: 'Hello, World')\n{rc[:].apply_sync(lambda: 'Hello, World')}\n")
    print("engine  host                  pid  Python   round trip")
    for number in rc.ids:
        host, pid, python = (rc[number].apply_sync(question) for question in (socket.gethostname, os.getpid, platform.python_version))
        begin = time.perf_counter()
        rc[number].apply_sync(int)
        print(f"{number:>6}  {host:<16} {pid:>8}  {python:<7}  {(time.perf_counter() - begin) * 1000:7.1f} ms")
    if service := rc[0].apply_sync(os.getenv, "PGSERVICE"):
        show_database(rc, service)
    rc.close()
    show_notebook()


def show_database(rc: ipp.Client, service: str) -> None:
    """Show a table that one engine makes and another one reads; no code has a password in it."""
    print(f"\nEngines reach the database {service} by sqlalchemy.create_engine('postgresql+psycopg2://').")
    print(f">>> rc[0].apply_sync(write)\n{rc[0].apply_sync(write)!r}")
    print(f">>> rc[-1].apply_sync(read)\n{rc[-1].apply_sync(read)}")


def show_notebook() -> None:
    """Show where JupyterLab is, by what its server has noted."""
    for server in list_running_servers():
        print("\nJupyterLab, for your browser; start-here.ipynb in it does all of this, with plots. The token is its password.")
        print(f"{server['url']}lab?token={server['token']}")


def write() -> str:
    """Runs on an engine: make a table."""
    import sqlalchemy as sa

    with sa.create_engine("postgresql+psycopg2://").begin() as connection:
        connection.execute(sa.text("drop table if exists squares"))
        connection.execute(sa.text("create table squares as select n, n * n as square from generate_series(1, 1000) n"))
        version = connection.scalar(sa.text("show server_version"))
    return f"table squares, in PostgreSQL {version.split()[0]}"


def read() -> object:
    """Runs on an engine: read the table, with pandas where that is among the fleet's packages."""
    import sqlalchemy as sa

    engine = sa.create_engine("postgresql+psycopg2://")
    question = sa.text("select count(*) as rows, sum(square) as total from squares")
    try:
        import pandas as pd
    except ImportError:
        with engine.connect() as connection:
            return dict(connection.execute(question).mappings().one())
    return pd.read_sql(question, engine)


if __name__ == "__main__":
    main(sys.argv[1])
