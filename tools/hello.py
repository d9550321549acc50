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
    rc.close()


if __name__ == "__main__":
    main(sys.argv[1])
