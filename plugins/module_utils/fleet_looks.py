# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Functions that run elsewhere: on an engine, or as source in a kernel. Each has to do with what is there."""

from __future__ import annotations

from typing import Any, Dict, List


def see_database(tls: bool, services: List[str]) -> Dict[str, Any]:
    """What the fleet's databases say, reached with nothing but the environment of who runs this.

    :param tls: whether it has to be over TLS, and to be refused without.
    :param services: of libpq, one for each database; the first is the default.
    """
    try:
        import psycopg2
    except ImportError as error:
        return {"error": "expected psycopg2 in the environment, got: %s" % error}
    try:
        connection = psycopg2.connect("", connect_timeout=3)
        with connection.cursor() as cursor:
            cursor.execute("select current_setting('server_version'), ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
            version, encrypted, protocol = cursor.fetchall()[0]
        connection.close()
        for service in services[1:]:
            psycopg2.connect("", service=service, connect_timeout=3).close()
    except psycopg2.Error as error:
        text = " ".join(str(error).split())
        return {"error": text, "again": "Connection refused" in text or "starting up" in text}
    found = {"version": version.split()[0], "tls": protocol or ""}
    if not tls:
        return found
    if not encrypted:
        return {**found, "error": "expected TLS, got a connection without"}
    try:
        psycopg2.connect("", sslmode="disable", channel_binding="disable", connect_timeout=3).close()
    except psycopg2.Error:
        return found
    return {**found, "error": "expected a connection without TLS to be refused, got one"}


def see_engines(profile: str, seconds: float) -> Dict[str, Any]:
    """Ids of the engines that a client sees, and whether one of them runs code for it.

    :param profile: name of the profile that has the client's connection file.
    """
    import time

    import ipyparallel

    deadline = time.monotonic() + seconds
    try:
        client = ipyparallel.Client(profile=profile, timeout=seconds)
    except Exception as error:
        return {"ids": [], "error": "%s: %s" % (type(error).__name__, str(error).split("\n")[0])}
    ids = list(client.ids)
    asked = [client[number].apply_async(int) for number in ids]
    while asked and not any(each.ready() for each in asked) and time.monotonic() < deadline:
        time.sleep(0.01)
    answered = any(each.ready() for each in asked)
    client.close()
    return {"ids": ids} if answered or not ids else {"ids": ids, "error": "none of its %d engines ran code in time" % len(ids)}
