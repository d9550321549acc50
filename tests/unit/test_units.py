"""Commands in systemd's units."""

from __future__ import annotations

import pytest
from ansible_collections.ipyfleet.cluster.plugins.filter.fleet import fleet_exec


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/bin/x", "--a=1", "/etc/engine-%i.json"], "/bin/x --a=1 /etc/engine-%i.json"),
        (["/bin/x", "--IPEngine.startup_command=import numpy as np"], '/bin/x "--IPEngine.startup_command=import numpy as np"'),
        (["/bin/x", "100%d", "$HOME", 'a"b\\c'], '/bin/x 100%%d "$$HOME" "a\\"b\\\\c"'),
    ],
)
def test_nothing_is_expanded_and_words_stay_whole(words: list[str], expected: str) -> None:
    assert fleet_exec(words) == expected
