# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may be shown of the files of a PostgreSQL server, which can hold passwords for other servers."""

from __future__ import annotations

import re

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import SECRET_OPTIONS

# settings whose values are shown to nobody
SECRET_SETTINGS = ("primary_conninfo", "ssl_passphrase_command")
MASK = "***"

_SETTING = re.compile(r"(?im)^([ \t]*#?[ \t]*(?:%s)(?:[ \t]*=[ \t]*|[ \t]+|(?=')))\S.*$" % "|".join(SECRET_SETTINGS))
# a rule goes on in the next line after a backslash, and its options have quotes in many ways: nothing after it is shown
_OPTION = re.compile(r'((?:%s)"?=)(?:.*\\\n)*.*' % "|".join(SECRET_OPTIONS))


def shown(name: str, value: object) -> str:
    """A setting's value as it may be shown."""
    return "another one" if name.lower() in SECRET_SETTINGS else str(value)


def masked(text: str) -> str:
    """The text of a configuration file as it may be shown: postgresql.conf, what that includes, or pg_hba.conf."""
    return _OPTION.sub(r"\g<1>" + MASK, _SETTING.sub(r"\g<1>" + MASK, text))
