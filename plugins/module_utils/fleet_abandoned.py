# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether anybody still waits for a module: a run that is cancelled leaves its modules behind on the hosts."""

from __future__ import annotations

import select


def abandoned() -> bool:
    """Whether nobody is left to read this process's standard output."""
    poll = select.poll()
    poll.register(1, 0)
    return bool(poll.poll(0))
