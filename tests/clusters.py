"""A Ray cluster of several nodes on this machine, by Ray's own means."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CLOSED = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-of-the-tests-" + 32 * "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it listens on loopback alone
}


@contextmanager
def nodes(count: int, **node_options: Any) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of so many nodes, to which this process is connected.

    node_options: of each node; num_cpus is 1 by default.
    """
    os.environ.update(_CLOSED)
    import ray
    from ray.cluster_utils import Cluster

    options = {"include_dashboard": False, "object_store_memory": 100 * 2**20} | node_options
    folder = tempfile.mkdtemp(prefix="hs-")
    cluster = Cluster(initialize_head=True, head_node_args={**options, "temp_dir": folder})
    try:
        for _ in range(count - 1):
            cluster.add_node(wait=False, **options)
        cluster.wait_for_nodes()
        ray.init(cluster.address, configure_logging=False, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
