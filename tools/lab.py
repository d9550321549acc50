#!/usr/bin/env python3
"""Throw-away Linux hosts for the tests: `ipyfleet.lab` on the command line, without a fleet on them.

    lab.py doctor                        find an engine, and a way it starts containers here
    lab.py image [--release bookworm]    make the host image (a no-op when it is there)
    lab.py up PREFIX HOST[=RELEASE] ...  start hosts, write how Ansible reaches them
    lab.py logs PREFIX FOLDER            what a failed run leaves to look at
    lab.py down PREFIX                   remove the hosts and their network
    lab.py run -- CMD ...                run CMD with the environment that doctor worked out

Standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from ipyfleet.lab import hosts
from ipyfleet.lab.engine import VARIABLE, Engine, LabError, find_engine
from ipyfleet.lab.image import HOST, RELEASE, RELEASES, build_image

# what container hosts need of Debian, for root and for ordinary users
APT = "podman netavark aardvark-dns runc crun nftables iptables uidmap slirp4netns fuse-overlayfs catatonit mmdebstrap openssh-client"


def environ(engine: Engine) -> dict[str, str]:
    """What other programs need in their environment to use an engine as it is used here."""
    return {VARIABLE: engine.name, **engine.environ}


def doctor() -> dict[str, object]:
    """What is used here: engine, its version, its environment, and an image."""
    image, engine = build_image(find_engine(), say=say)
    return {"image": image, "environment": environ(engine), "version": engine.run("--version").stdout.strip()}


def make_images(releases: Iterable[str]) -> None:
    """Make images of hosts that are not there yet."""
    for release in releases:
        build_image(find_engine(), release, say=say)


def say(text: str) -> None:
    """Say what takes its time."""
    print(f"lab: {text}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("doctor")
    verb = verbs.add_parser("image")
    verb.add_argument("--release", choices=RELEASES, default=RELEASE)
    verb.add_argument("--containerfile", type=Path, default=HOST)
    verb.add_argument("--force", action="store_true")
    verb = verbs.add_parser("up")
    verb.add_argument("prefix")
    verb.add_argument("hosts", nargs="+", metavar="HOST[=RELEASE]")
    verb.add_argument("--inventory", type=Path, required=True, help="inventory file to write")
    verb.add_argument("--key", type=Path, required=True, help="SSH key to use, made when absent; known_hosts is written beside it")
    verb.add_argument("--networks", action="append", default=[], metavar="HOST=NAME,...", help="networks of a host, its main one first")
    verb.add_argument("--run-arg", action="append", default=[], help="one more argument for `run`, as it is")
    verb = verbs.add_parser("logs")
    verb.add_argument("prefix")
    verb.add_argument("folder", type=Path)
    verb = verbs.add_parser("down")
    verb.add_argument("prefix")
    verb = verbs.add_parser("run")
    verb.add_argument("argv", nargs=argparse.REMAINDER)
    return top


def up(args: argparse.Namespace) -> dict[str, object]:
    """Start hosts and write an inventory of them."""
    wanted = {name: release or RELEASE for name, _, release in (each.partition("=") for each in args.hosts)}
    networks = {name: found.split(",") for name, _, found in (each.partition("=") for each in args.networks)}
    way = hosts.Way(args.key, args.key.with_name("known_hosts"))
    started, engine = hosts.up(find_engine(), args.prefix, wanted, way, args.run_arg, say, networks)
    args.inventory.parent.mkdir(parents=True, exist_ok=True)
    args.inventory.write_text(hosts.inventory(started, engine, way))
    return {"hosts": {name: asdict(host) for name, host in started.items()}, "inventory": str(args.inventory)}


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.verb == "run":
            words = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
            os.execvpe(words[0], words, {**os.environ, **environ(find_engine())})
        elif args.verb == "image":
            print(build_image(find_engine(), args.release, args.containerfile, args.force, say)[0])
        elif args.verb == "doctor":
            print(json.dumps(doctor(), indent=1))
        elif args.verb == "up":
            print(json.dumps(up(args), indent=1))
        elif args.verb == "logs":
            hosts.logs(find_engine(), args.prefix, args.folder)
        elif args.verb == "down":
            hosts.down(find_engine(), args.prefix)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
