# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names in ipyparallel's configuration files, old and new, and what becomes of each in a fleet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.names import nearest

# classes that were renamed, from IPython 0.11 to ipyparallel 7
CLASSES: Mapping[str, str] = {
    "HubFactory": "IPController",
    "IPControllerApp": "IPController",
    "ControllerFactory": "IPController",
    "RegistrationFactory": "IPController",
    "EngineFactory": "IPEngine",
    "IPEngineApp": "IPEngine",
    "MPI": "IPEngine",
    "IPClusterApp": "IPCluster",
    "IPClusterEnginesApp": "IPClusterEngines",
    "IPClusterStartApp": "IPClusterStart",
    "StreamSession": "Session",
    "IPythonKernel": "IPythonParallelKernel",
    "IPKernel": "IPythonParallelKernel",
    "Kernel": "IPythonParallelKernel",
}
# traits that were renamed or have moved, after their classes were
TRAITS: Mapping[tuple[str, str], tuple[str, str]] = {
    **{
        (old, trait): ("Cluster", trait)
        for old in ("IPClusterEngines", "IPClusterStart", "IPCluster")
        for trait in ("n", "delay", "engine_launcher_class", "controller_launcher_class", "controller_ip", "controller_location")
    },
    **{(old, "engine_launcher"): ("Cluster", "engine_launcher_class") for old in ("IPClusterEngines", "IPClusterStart", "IPCluster")},
    **{
        (old, "controller_launcher"): ("Cluster", "controller_launcher_class")
        for old in ("IPClusterEngines", "IPClusterStart", "IPCluster")
    },
    ("IPEngine", "use"): ("IPEngine", "use_mpi"),
    ("IPEngine", "url"): ("IPEngine", "registration_url"),
    ("IPController", "secure"): ("IPController", "enable_curve"),
    ("IPController", "scheme"): ("TaskScheduler", "scheme_name"),
    ("TaskScheduler", "scheme"): ("TaskScheduler", "scheme_name"),
    ("HeartMonitor", "max_misses"): ("HeartMonitor", "max_heartmonitor_misses"),
}
# launchers of single hosts' processes, most specific first: a trait of the first one counts
ENGINE_LAUNCHERS = (
    "SSHEngineSetLauncher", "SSHEngineLauncher", "SSHProxyEngineSetLauncher", "SSHLauncher", "LocalEngineSetLauncher",
    "LocalEngineLauncher", "LocalProcessLauncher", "EngineLauncher", "BaseLauncher",
)  # fmt: skip
CONTROLLER_LAUNCHERS = (
    "SSHControllerLauncher", "SSHLauncher", "LocalControllerLauncher", "MPIControllerLauncher", "LocalProcessLauncher",
    "ControllerLauncher", "BaseLauncher",
)  # fmt: skip
# databases of the hub by their short names
DATABASES = {name.lower(): f"ipyparallel.controller.{name.lower()}.{name}" for name in ("DictDB", "SQLiteDB", "MongoDB")} | {
    "nodb": "ipyparallel.controller.dictdb.NoDB"
}


@dataclass(frozen=True)
class Taken:
    """A setting that a fleet has too.

    :param types: types of its values.
    :param variable: the role's variable that it becomes.
    :param group: mapping of settings that it is kept in by its own name, where it has no variable.
    """

    types: tuple[type, ...]
    variable: str = ""
    group: str = ""


CONTROLLER, ENGINE = "ipp_controller_config", "ipp_engine_config"
NUMBER: tuple[type, ...] = (int, float)
TAKEN: Mapping[str, Taken] = {
    "HeartMonitor.period": Taken((int,), "ipp_controller_heartbeat_period"),
    "HeartMonitor.max_heartmonitor_misses": Taken((int,), "ipp_controller_heartbeat_misses"),
    "HeartMonitor.debug": Taken((bool,), group=CONTROLLER),
    "IPController.broadcast_scheduler_depth": Taken((int,), "ipp_controller_broadcast_depth"),
    "IPController.log_level": Taken((int, str), "ipp_controller_log_level"),
    "IPController.db_class": Taken((str,), group=CONTROLLER),
    "IPController.registration_timeout": Taken((int,), group=CONTROLLER),
    "TaskScheduler.hwm": Taken((int,), group=CONTROLLER),
    "DictDB.record_limit": Taken((int,), group=CONTROLLER),
    "DictDB.size_limit": Taken((int,), group=CONTROLLER),
    "DictDB.cull_fraction": Taken(NUMBER, group=CONTROLLER),
    "SQLiteDB.table": Taken((str,), group=CONTROLLER),
    "IPEngine.log_level": Taken((int, str), "ipp_engine_log_level"),
    "IPEngine.timeout": Taken(NUMBER, "ipp_engine_registration_timeout"),
    "IPEngine.startup_command": Taken((str,), group=ENGINE),
    "IPythonParallelKernel.stop_on_error_timeout": Taken(NUMBER, group=ENGINE),
    "ZMQInteractiveShell.ast_node_interactivity": Taken((str,), group=ENGINE),
    "ZMQInteractiveShell.autoawait": Taken((bool,), group=ENGINE),
    "ZMQInteractiveShell.cache_size": Taken((int,), group=ENGINE),
    "ZMQInteractiveShell.colors": Taken((str,), group=ENGINE),
    "ZMQInteractiveShell.xmode": Taken((str,), group=ENGINE),
}
# names that are read, for whoever mistypes one
READ = (
    *TAKEN, "Cluster.n", "Cluster.engine_launcher_class", "Cluster.controller_launcher_class", "Cluster.controller_ip",
    "Cluster.controller_location", "IPController.ip", "IPController.location", "SSHEngineSetLauncher.engines",
    "SSHEngineSetLauncher.engine_args", "SSHEngineSetLauncher.ssh_args", "SSHLauncher.ssh_args", "SSHLauncher.user", "Session.key",
)  # fmt: skip
OWN_ENVIRONMENT = "each host has the fleet's Python environment; name packages in python_packages"
OWN_FILES = "connection files are made and brought to where they are needed"
OWN_KEYS = "keys are made for the fleet, and are nowhere else"
OWN_PORTS = "the fleet has a block of ports of its own; `ports` says its first"
OWN_PROFILE = "profiles are made on each host, named like the fleet"
OWN_SERVICE = "services are started, watched and stopped by each host's own supervisor, all at once"
LOGS = "logs are where services' logs are: ipyfleet logs"
STARTUP = "not for engines of a fleet; see IPEngine.startup_command of ipp_engine_config"
WORK = "engines work in a folder of the fleet's; give paths in full"
TUNNEL = "engines that reach the controller only through SSH are set up by ipp_engine_tunnel: ssh"
# what has no counterpart because it needs none, by patterns of Class.trait; the first that fits says why
REPLACED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), why)
    for pattern, why in (
        (r"Session\.(key|keyfile|signature_scheme)|IPController\.curve_.*|IPEngine\.curve_.*", OWN_KEYS),
        (r"Session\.(packer|unpacker|session|username)", OWN_FILES),
        (r".*\.(reuse_files|restore_engines)", "always on: a controller that is restarted finds its engines again"),
        (r".*\.enable_curve", "connections are always encrypted; ipp_controller_curve: false turns that off"),
        (r".*\.(engine_json_file|client_json_file|url_file|url_file_name|registration_url|wait_for_url_file)", OWN_FILES),
        (r"IPController\.(\w*ports|regport|mon_port|notifier_port|control|hb|iopub|mux|task)", OWN_PORTS),
        (r"IPController\.(\w*transport|\w*interface|monitor_ip)", "connections are TCP, those of the controller itself on loopback"),
        (r"IPController\.use_threads", "schedulers are processes, which are restarted with the controller"),
        (r"IPController\.ssh_server", "clients that need SSH use ipyfleet connect, or ipp.Client(sshserver=...)"),
        (r"IPController\.engine_ssh_server|IPEngine\.(sshserver|sshkey|paramiko)", TUNNEL),
        (r"IPEngine\.(use_mpi|init_mpi|mpi_registration_delay)", "MPI between engines is set up by ipp_engine_launcher: mpi"),
        (r"IPEngine\.(max_heartbeat_misses)", "ipp_engine_controller_patience says how long an engine waits for its controller"),
        (r"IPEngine\.(enable_nanny|id)", "each slot has an engine id of its own, and a supervisor"),
        (r"IPEngine\.startup_script", STARTUP),
        (r"TaskScheduler\.scheme_name", "tasks go to the engine with the least load"),
        (r"SQLiteDB\.(filename|location)", "the file is in the controller's own folder"),
        (r"MongoDB\..*", "a service outside of the fleet; ipp_controller_config takes any setting"),
        (r".*\.(log_to_file|log_url|log_format|log_datefmt|logging_config|clean_logs|verbose_crash|output_limit)", LOGS),
        (r".*\.(cluster_id|profile|ipython_dir|overwrite|auto_create|copy_config_files|extra_config_file|load_profile)", OWN_PROFILE),
        (r".*\.(to_send|to_fetch|scp_cmd|scp_args)", OWN_FILES),
        (r".*\.remote_profile_dir|ProfileDir\.location", OWN_PROFILE),
        (r".*\.work_dir", WORK),
        (r".*\.(engine_cmd|controller_cmd|ipcluster_cmd|remote_python)", OWN_ENVIRONMENT),
        (r".*\.ssh_cmd", "Ansible's ssh is used; ansible_ssh_executable names another one"),
        (r".*\.(delay|daemonize|early_shutdown|engine_timeout|poll_seconds|stop_\w+|send_engines_connection_env)", OWN_SERVICE),
        (r".*\.(connection_info_timeout|all_cluster_ids|signal|reset|create_default)", OWN_SERVICE),
        (r"InteractiveShellApp\..*|TerminalI\w+\..*", STARTUP),
        (r"(PBS|SGE|Slurm|LSF|HTCondor|WindowsHPC|Batch)\w*\..*", "jobs of a batch system; the hosts of a fleet are named"),
        (r"MPI\w*\..*", "MPI between engines is set up by ipp_engine_launcher: mpi"),
        (r"(SSH|Local)\w*\..*", "no part of this launcher's that is used here"),
    )
)


def today(cls: str, trait: str) -> tuple[str, str]:
    """Names that a class and its trait have now."""
    cls = CLASSES.get(cls, cls).replace("MPIExec", "MPI")
    return TRAITS.get((cls, trait), (cls, trait))


def launcher(name: str) -> str:
    """Short name of a launcher, from that of its class in whatever form: `ssh`, `local`, `mpi`, ..."""
    short = re.split(r"[.:]", name.strip())[-1].lower()
    short = re.sub(r"(engineset|engine|controller)?(launcher)?$", "", short)
    return {"mpiexec": "mpi", "windowshpc": "winhpc"}.get(short, short)


def replacement(name: str) -> str:
    """Why a setting has no counterpart in a fleet, and what is there instead.

    :param name: ``Class.trait`` in today's names.
    """
    if found := next((why for pattern, why in REPLACED if pattern.fullmatch(name)), ""):
        return found
    near = nearest(name, READ, 0.8)
    return (
        f"not known; did you mean {near}?" if near else "not known; ipp_controller_config and ipp_engine_config take any setting there is"
    )
