"""A cluster of this machine alone is closed to others and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hashsearch.distributed.cluster import cluster
from hashsearch.errors import ClusterError

ROOT = Path(__file__).parents[1]
# Start a cluster with one worker, and print the addresses on which its processes listen.
LISTENING = """
import os, psutil
from hashsearch.distributed.cluster import cluster

with cluster():
    import ray
    worker = ray.remote(lambda: os.getpid())
    ray.get(worker.remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    names = {one.name() for one in processes}
    assert {"gcs_server", "raylet"} <= names, names
    assert not ray._private.worker._global_node.webui_url, "there is a dashboard"
    for one in processes:
        for socket in one.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN:
                print(socket.laddr.ip)
"""


def test_a_cluster_of_this_machine_listens_on_loopback_alone_and_leaves_no_files(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    addresses = set(done.stdout.split())
    assert addresses, "no process listens"
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert list(tmp_path.iterdir()) == [], "the token is kept in memory"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1, where host:port is wanted: "),
        ("somewhere", "no Ray cluster answers at somewhere, where host:port is wanted: "),
        ("ray://127.0.0.1:10001", "ray://127.0.0.1:10001 is the address of a Ray client server; "),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address, sentence):
    with pytest.raises(ClusterError) as refused, cluster(address):
        pass
    assert str(refused.value).startswith(sentence)
