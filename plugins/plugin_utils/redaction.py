# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Texts that people pass on, without what must not be passed on.

What is known to be secret is taken out wherever it is, in each of the forms that programs give it; what only looks
so, such as what stands behind ``password:``, is taken out as well.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import Z85, z85

REMOVED = "[removed]"
# shorter ones are words of every text; they go where they stand behind the name of a secret
SHORTEST = 4
# of shorter ones, other forms are words as well
SHORTEST_ENCODED = 8
# names of what is secret, unless it is a place of it
NAME = r"[\w.-]*(?:passw(?:or)?d|passphrase|become_pass|_pass\b|secret|token|private_key|api_?key|\bcurve_\w+)[\w-]*"
PLACE = re.compile(r"(?i)(file|files|dir|dirs|path|days|bytes|seconds|form|user|users|name)$")
NAMED = re.compile(
    rf"(?i)(?<![\w.-])({NAME})([\"']?\s*(?:=(?!=)|:)\s*)(?![|>]|!vault)(\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,}}\[\]{{\"'=][^\s,}}\]\"']*)"
)
# a value of several lines, more indented than its name
BLOCK = re.compile(rf"(?im)^([ \t]*)((?:- )?[\"']?{NAME}[\"']?\s*:)[ \t]*(?:!\w+[ \t]*)?[|>][-+0-9]*[ \t]*\n(?:\1[ \t]+\S.*\n?|[ \t]*\n)*")
KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
FORMS = (
    (re.compile(r"(\b[\w+.-]+://[^\s:/@\"']*:)[^\s@/\"']+@"), rf"\1{REMOVED}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {REMOVED}"),
    (re.compile(r"SCRAM-SHA-256\$[^\s\"']+"), REMOVED),
    (re.compile(r"(?:argon2:\S+|\$argon2\w*\$\S+|\$[156y]\$[^\s:\"']{8,}|\bmd5[0-9a-f]{32}\b)"), REMOVED),
    (re.compile(r"\$ANSIBLE_VAULT;[^\n]*(?:\n[ \t]*[0-9a-f]{16,})*"), REMOVED),
)


def secret_values(content: object, name: str = "") -> Iterator[str]:
    """Every text in data, as of files that have nothing but secrets; certificates and what is public go by."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from secret_values(value, str(key))
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from secret_values(value, name)
    elif isinstance(content, str) and "BEGIN CERTIFICATE" not in content:
        yield content


def named_values(content: object, name: str = "") -> Iterator[str]:
    """Texts in data that stand behind the name of a secret, at any depth."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from named_values(value, str(key))
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from named_values(value, name)
    elif isinstance(content, (str, int)) and not isinstance(content, bool) and is_secret_name(name):
        yield str(content)


def is_secret_name(name: str) -> bool:
    """Whether a name says that what it names is secret."""
    return bool(re.fullmatch(f"(?i){NAME}", name)) and not PLACE.search(name)


def forms_of(secret: str) -> set[str]:
    """What a secret looks like in files, addresses, headers, and dumps of its bytes."""
    if "\n" in secret.strip():
        # of a key, each line of what is no heading
        return {each for line in secret.splitlines() if len(line) >= SHORTEST_ENCODED and "-----" not in line for each in forms_of(line)}
    found = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], secret.replace("'", "''")}
    if len(secret) >= SHORTEST_ENCODED:
        found |= {quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret)[1:-1]}
        for data in bytes_of(secret):
            found |= {data.hex(), data.hex().upper(), *in_base64(data)}
            found |= {z85(data)} if len(data) % 4 == 0 else set()
    return {each for each in found if len(each) >= SHORTEST}


def bytes_of(secret: str) -> Iterator[bytes]:
    """A secret as bytes: its text, and what it is the text of."""
    yield secret.encode()
    if re.fullmatch(r"(?:[0-9a-fA-F]{2}){8,}", secret):
        yield bytes.fromhex(secret)
    if len(secret) == 40:
        # of a CURVE key
        try:
            yield from (data for data in (of_z85(secret),) if z85(data) == secret)
        except (ValueError, OverflowError):
            return


def of_z85(text: str) -> bytes:
    """Bytes of a text in ZeroMQ's base 85."""
    found = b""
    for begin in range(0, len(text), 5):
        number = 0
        for each in text[begin : begin + 5]:
            number = number * 85 + Z85.index(each)
        found += number.to_bytes(4, "big")
    return found


def in_base64(data: bytes) -> set[str]:
    """What stays the same of bytes in base 64, wherever they begin in what is encoded."""
    found = set()
    for before in range(3):
        text = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        # the first and last signs belong to what is before and behind, too
        first, end = (0, 2, 3)[before], len(text) if (before + len(data)) % 3 == 0 else len(text) - 1
        part = text[first:end]
        found |= {part, part.replace("+", "-").replace("/", "_")} if len(part) >= SHORTEST_ENCODED else set()
    return found


class Redactor:
    """Takes secrets out of texts.

    :param secrets: what is known to be secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self.secrets = sorted({each for each in secrets if each.strip()})
        self.forms = sorted({form for each in self.secrets for form in forms_of(each)}, key=lambda form: (-len(form), form))

    def clean(self, text: str) -> str:
        """A text without secrets."""
        text = KEY.sub(REMOVED, text)
        for form in self.forms:
            if form in text:
                text = text.replace(form, REMOVED)
        text = BLOCK.sub(lambda found: f"{found[1]}{found[2]} {REMOVED}\n", text)
        text = NAMED.sub(lambda found: found[0] if PLACE.search(found[1]) else f"{found[1]}{found[2]}{REMOVED}", text)
        for pattern, instead in FORMS:
            text = pattern.sub(instead, text)
        return text

    def leaks(self, text: str) -> bool:
        """Whether a text has a known secret in any of its forms."""
        return any(form in text for form in self.forms) or KEY.search(text) is not None
