"""A Ray cluster to work on: one that runs already, or one of this machine, closed to others.

Whoever reaches the ports of a Ray cluster, and has its token, can run code on all its nodes.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from hashsearch.distributed.calls import calling, calls_allowed
from hashsearch.errors import ClusterError, MissingPackage
from hashsearch.extras import missing
from hashsearch.hardware import usable_cores
from hashsearch.progress import progress_report

_log = logging.getLogger(__name__)

# Ray and its processes read these variables; what a person has set stays as it is.
_CLOSED = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
# With "0" it listens on the loopback address alone, as it does on Windows and macOS by itself.
_MANY_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_BREAKPOINT = "PYTHONBREAKPOINT"  # which Ray sets when it connects
_PATIENCE_S = 5.0  # for a cluster to answer
_OBJECT_BYTES = 2**26  # for each core, of memory for what is sent between processes


@contextmanager
def cluster(address: str | None = None, cores: int | None = None) -> Iterator[None]:
    """Within the block, this process is connected to a Ray cluster.

    address: of a cluster that runs and that this machine is a node of, as `host:port`, or `auto`
    to look for it here. None starts a cluster of this machine alone, which ends with the block: it
    listens on loopback, and asks for a token that only its own processes know. cores: how many
    that one has; all of the machine's by default. If this process is connected to a cluster
    already, that one is used, and stays. Afterwards, Ray starts no cluster by itself in this
    process, as it would if a thread still called it.
    Raises MissingPackage without Ray, and ClusterError if the cluster cannot be used.
    """
    if find_spec("ray") is None:
        raise MissingPackage(missing("ray", "Clusters are run by"))
    with _signals_wait():
        import ray
    if ray.is_initialized():
        _require_connected(address)
        with calls_allowed():
            yield
    elif address is None:
        with _own(cores or usable_cores()):
            yield
    else:
        with _running(address):
            yield


def _require_connected(address: str | None) -> None:
    """Raise ClusterError unless an address, if there is one, is that of the present cluster."""
    import ray

    present = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", present):
        raise ClusterError(
            f"this process is connected to the Ray cluster {present}, and {address} is another one"
        )


@contextmanager
def _own(cores: int) -> Iterator[None]:
    """A cluster of this machine alone."""
    closed = {**_CLOSED, _MANY_NODES: "0"}
    if not any(name in os.environ for name in _TOKENS):
        closed["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Ray lets all users write into its folder, so it lies in one that others cannot enter. The
    # paths of its sockets are long, and may have 107 characters.
    parent = "/tmp" if Path("/tmp").is_dir() else None
    private = tempfile.mkdtemp(prefix="hashsearch-", dir=parent)
    options: dict[str, Any] = {
        "num_cpus": cores,
        "object_store_memory": max(_OBJECT_BYTES * cores, 2 * _OBJECT_BYTES),
        "include_dashboard": False,
        "_temp_dir": str(Path(private) / "ray"),
    }
    try:
        with _settings(closed), _connected("local", "no cluster can be started here", **options):
            yield
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextmanager
def _running(address: str) -> Iterator[None]:
    """A cluster that runs already."""
    if address == "auto":
        address = _found()
    if "://" in address:
        raise ClusterError(
            f"{address} is a URL, as of a Ray client server; a cluster is named by host:port of "
            "its first machine, on one of its machines"
        )
    host, _, port = address.rpartition(":")
    try:  # Ray itself would try for minutes
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}; its address is host:port ({error})"
        ) from error
    with _settings(_CLOSED), _connected(address, f"the cluster {address} cannot be used"):
        yield


def _found() -> str:
    """The address of the cluster that this machine is a node of."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    named = os.environ.get("RAY_ADDRESS", "auto")
    if named != "auto":
        return named
    try:
        return canonicalize_bootstrap_address_or_die("auto")
    except ConnectionError as error:
        raise ClusterError(
            "no Ray cluster runs on this machine that --ray-address auto could find; start one by "
            "ray start, or name its address: --ray-address host:port"
        ) from error


@contextmanager
def _settings(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of Ray's that are not set, within the block.

    Ray keeps what it has read of them, so it is made to read them again.
    """
    absent = [name for name in (*variables, _BREAKPOINT) if name not in os.environ]
    os.environ.update({name: variables[name] for name in absent if name in variables})
    try:
        _read_settings()
        yield
    finally:
        for name in absent:
            os.environ.pop(name, None)
        _read_settings()


def _read_settings() -> None:
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    by_itself = not ray_constants.IS_WINDOWS_OR_OSX
    many_nodes = ray_constants.env_bool(_MANY_NODES, by_itself)  # type: ignore
    ray_constants.ENABLE_RAY_CLUSTER = many_nodes
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _connected(address: str, otherwise: str, **options: Any) -> Iterator[None]:
    import ray
    from ray._private import auto_init_hook, utils, worker
    from ray.exceptions import AuthenticationError

    auto_init_hook.enable_auto_connect = False
    # Otherwise Ray prints among this program's output what became of its processes.
    printing, worker.print_to_stdstream = worker.print_to_stdstream, _note
    # And its handler of SIGTERM would end this process in the middle of what it does.
    setting, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda _: None
    try:
        doing = "starting a Ray cluster" if options else f"joining {address}"
        with _signals_wait(), progress_report(doing):
            try:
                ray.init(address, configure_logging=False, log_to_driver=False, **options)
            except AuthenticationError as error:
                raise ClusterError(f"{otherwise}: this machine does not know its token") from error
            except Exception as error:  # of any class, also Exception itself
                (first, *_) = str(error).splitlines() or [type(error).__name__]
                raise ClusterError(f"{otherwise}: {first}") from error
        with calls_allowed():
            yield
    finally:
        with _signals_wait() as wait:
            node: Any = worker._global_node
            if node is not None:
                kill = node.kill_all_processes
                # When it has disconnected, Ray drops the handler of SIGTERM.
                node.kill_all_processes = lambda **how: (wait(), kill(**how))
            ray.shutdown()
            worker.print_to_stdstream, utils.set_sigterm_handler = printing, setting


@contextmanager
def _signals_wait() -> Iterator[Callable[[], None]]:
    """A signal that stops the process does so at the end of the block, a second one at once.

    Ray's processes would be left behind if it stopped Ray in the middle. Yields what lets signals
    wait again, after Ray has changed that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread can handle signals
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Without those that Python does not know, and signals that are ignored.
    before = {number: one for number, one in handlers.items() if one not in (None, signal.SIG_IGN)}
    came: list[int] = []

    def wait() -> None:
        for number in before:
            signal.signal(number, note)

    def act() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        while came:
            signal.raise_signal(came.pop(0))

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            act()
        _log.warning("stopping, in some seconds: Ray is starting or ending its processes")

    wait()
    try:
        yield wait
    finally:
        act()


def require_node() -> None:
    """Raise ClusterError if Ray's processes of this machine have ended: all else goes through them.

    Nothing is known, and nothing raised, while the cluster's first machine does not answer: Ray
    ends this process if that lasts for a minute.
    """
    import ray

    with calling():
        here = ray.get_runtime_context().get_node_id()
        try:
            nodes = ray.nodes()
        except Exception:  # of any class
            return
    if not any(node["Alive"] for node in nodes if node["NodeID"] == here):
        raise ClusterError(
            "Ray's process of this machine (raylet) has ended, and the cluster cannot be reached "
            "without it; start the command again, and before it this machine's node, if the "
            "cluster is not the command's own"
        )


def _note(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        _log.debug("Ray: %s", line)
