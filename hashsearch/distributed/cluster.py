"""A Ray cluster to work on: one that runs already, or one of this machine, closed to others.

Whoever reaches the ports of a Ray cluster, and has its token, can run code on all its nodes.
"""

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from hashsearch.errors import ClusterError, MissingPackage
from hashsearch.extras import missing
from hashsearch.hardware import usable_cores

# Ray and its processes read these variables; what a person has set stays as it is.
_CLOSED = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
# With "0" it listens on the loopback address alone, as it does on Windows and macOS by itself.
_MANY_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_PATIENCE_S = 5.0  # for a cluster to answer
_OBJECT_BYTES = 2**28  # of memory for what is sent between processes, some megabytes at a time


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Within the block, this process is connected to a Ray cluster.

    address: of a cluster that runs and that this machine is a node of, as `host:port`, or `auto`
    to look for it here. None starts a cluster of this machine alone, which ends with the block: it
    listens on loopback, and asks for a token that only its own processes know. If this process is
    connected to a cluster already, that one is used, and stays.
    Raises MissingPackage without Ray, and ClusterError if the cluster cannot be used.
    """
    if find_spec("ray") is None:
        raise MissingPackage(missing("ray", "Clusters are run by"))
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    for name, value in _CLOSED.items():
        os.environ.setdefault(name, value)
    before = signal.getsignal(signal.SIGTERM)
    with _own() if address is None else _running(address):
        if signal.getsignal(signal.SIGTERM) is not before:  # Ray has set a handler that exits
            signal.signal(signal.SIGTERM, before)
        yield


@contextmanager
def _own() -> Iterator[None]:
    """A cluster of this machine alone."""
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault(_MANY_NODES, "0")
    from ray._private import ray_constants

    if os.environ[_MANY_NODES] == "0":
        ray_constants.ENABLE_RAY_CLUSTER = False  # if Ray was imported before
    # Of Ray's sockets and logs; a longer path than that of /tmp may be too long for a socket.
    folder = tempfile.mkdtemp(prefix="hashsearch-")
    options: dict[str, Any] = {
        "num_cpus": usable_cores(),
        "object_store_memory": _OBJECT_BYTES,
        "include_dashboard": False,
        "_temp_dir": folder,
    }
    try:
        with _connected("local", "no Ray cluster can be started here", **options):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(address: str) -> Iterator[None]:
    """A cluster that runs already."""
    if "://" in address:
        raise ClusterError(
            f"{address} is the address of a Ray client server; wanted is host:port of a cluster "
            "that this machine is a node of (`ray start --address=host:port`), or auto"
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ClusterError(
                f"no Ray cluster answers at {address}, where host:port is wanted: {error}"
            ) from error
    with _connected(
        address, f"the Ray cluster {address} cannot be used, perhaps for want of its token"
    ):
        yield


@contextmanager
def _connected(address: str, otherwise: str, **options: Any) -> Iterator[None]:
    import ray
    from ray.exceptions import RayError

    try:
        ray.init(address, configure_logging=False, log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise ClusterError(f"{otherwise}: {first}") from error
    try:
        yield
    finally:
        ray.shutdown()
