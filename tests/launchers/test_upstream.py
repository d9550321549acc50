"""ipyparallel's own tests of clusters and launchers, with a fleet instead of processes of this machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ipyparallel.tests import test_cluster, test_launcher
from ipyparallel.tests.test_cluster import (  # noqa: F401
    test_async_with,
    test_cluster_id,
    test_cluster_manager_notice_stop,
    test_cluster_repr,
    test_default_from_file,
    test_get_output,
    test_restart_engines,
    test_signal_engines,
    test_start_and_connect_activate,
    test_start_stop_cluster,
    test_start_stop_engines,
    test_sync_with,
    test_to_from_dict,
)
from ipyparallel.tests.test_launcher import (  # noqa: F401
    build_launcher,
    cluster_id,
    profile_dir,
    test_cluster_id_env,
    test_entrypoints,
    test_profile_dir_env,
    work_dir,
)

from ipyfleet.launchers import FleetControllerLauncher, FleetEngineSetLauncher, FleetLauncher

LEFT_OUT = {
    "test_start_stop_controller": "looks at the controller's process on this machine; test_fleet.py has the same without that",
    "test_wait_for_engines_crash": "expects engines that crash to be gone; a fleet's are started again",
    "test_ipython_log": "is about no launcher",
    "test_load_profile": "is about no launcher",
    "test_cluster_abbreviations": "is about other launchers",
    "test_cluster_manager": "is about no launcher",
    "test_batch_template": "is about other launchers",
    "test_winhpc_template": "is about other launchers",
    "test_ssh_remote_profile_dir": "is about other launchers",
    "test_ssh_waitpid": "is about other launchers",
}


@pytest.fixture(params=[FleetControllerLauncher, FleetEngineSetLauncher])
def launcher(request: pytest.FixtureRequest, build_launcher: Callable[..., FleetLauncher]) -> FleetLauncher:  # noqa: F811
    """Of ipyparallel's tests of launchers."""
    return build_launcher(Launcher=request.param)


def test_none_is_left_out_without_a_reason() -> None:
    theirs = {name for module in (test_cluster, test_launcher) for name in vars(module) if name.startswith("test_")}
    taken = {name for name in globals() if name in theirs}
    assert theirs - taken == set(LEFT_OUT)
