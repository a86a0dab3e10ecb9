"""A Ray cluster of several nodes on this machine, by Ray's own means."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hashsearch.distributed.calls import calls_allowed
from hashsearch.distributed.cluster import _CLOSED, _MANY_NODES, _settings


@contextmanager
def nodes(count: int, **node_options: Any) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of so many nodes, to which this process is connected.

    node_options: of each node; num_cpus is 1 by default.
    """
    import ray
    from ray.cluster_utils import Cluster

    options = {"include_dashboard": False, "object_store_memory": 100 * 2**20} | node_options
    folder = tempfile.mkdtemp(prefix="hs-")
    closed = {**_CLOSED, _MANY_NODES: "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    closed["RAY_TMPDIR"] = folder  # where Cluster notes its address; /tmp/ray may not exist
    with _settings(closed):
        head = {**options, "temp_dir": str(Path(folder) / "ray")}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(count - 1):
                cluster.add_node(wait=False, **options)
            cluster.wait_for_nodes()
            ray.init(cluster.address, configure_logging=False, log_to_driver=False)
            with calls_allowed():
                yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
