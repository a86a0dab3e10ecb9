"""A cluster of this machine alone is closed to others and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hashsearch.cli import main
from hashsearch.distributed.cluster import cluster
from hashsearch.errors import ClusterError

ROOT = Path(__file__).parents[1]
# Start a cluster with one worker, and print the addresses on which its processes listen.
LISTENING = """
import os, psutil, signal, stat, subprocess, sys
import ray  # before, as in a notebook
from pathlib import Path
from hashsearch.distributed.cluster import cluster

before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
with cluster():
    worker = ray.remote(lambda: os.getpid())
    ray.get(worker.remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    names = {one.name() for one in processes}
    assert {"gcs_server", "raylet"} <= names, names
    assert not ray._private.worker._global_node.webui_url, "there is a dashboard"
    private = Path(ray._private.worker._global_node.get_temp_dir_path()).parent
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for one in processes:
        for socket in one.net_connections("inet"):
            if socket.status == psutil.CONN_LISTEN:
                print(socket.laddr.ip)
    assert signal.getsignal(signal.SIGTERM) is handler
    address = ray.get_runtime_context().gcs_address
    stranger = {**before, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    code = f"import ray; ray.init({address!r}, configure_logging=False)"
    refused = subprocess.Popen([sys.executable, "-c", code], env=stranger, stderr=subprocess.PIPE)
    line = refused.stderr.readline()
    refused.kill()
    assert b"Unauthenticated" in line, line
assert dict(os.environ) == before
assert not private.exists()
"""


def test_a_cluster_of_this_machine_is_closed_to_others_and_leaves_nothing(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    addresses = set(done.stdout.split())
    assert addresses, "no process listens"
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert list(tmp_path.iterdir()) == [], "the token is kept in memory"


# Leave a cluster while threads search, load a part again, and load another base.
LEFT = """
import os, signal, sys, time
import numpy as np
from contextlib import suppress
from pathlib import Path
from threading import Thread
from hashsearch.distributed.cluster import cluster
from hashsearch.errors import ClusterError, PartMissing
from hashsearch.gallery.shards import sha256_of_file
from hashsearch.search import Block, Stored

def ended(work, errors):
    try:
        while True:
            with suppress(PartMissing):
                work()
    except ClusterError as error:
        errors.append(str(error))

codes = np.random.default_rng(0).integers(0, 256, (1000, 32), np.uint8)
file = Path(sys.argv[1])
np.save(file, codes)
stored = Stored(file, sha256_of_file(file))
blocks = {"codes": [Block(codes, np.arange(1000), np.arange(1000), stored)]}
errors = []
with cluster():
    import ray
    from hashsearch.distributed.bases import ClusterBases

    bases = ClusterBases(2, 1, partial=False)
    index = bases.segment(np.arange(1000), blocks).indexes["codes"]
    searches = [lambda: index.search(codes[:5], 10)] * 2
    loads = [lambda: bases.segment(np.arange(1000), blocks)]
    threads = [Thread(target=ended, args=(work, errors)) for work in searches + loads]
    replica = index.replicas._of_slice[0][0]

    def kill():
        while replica.actor is None:
            time.sleep(0.01)
        process = ray.get(replica.actor.__ray_call__.remote(lambda holder: os.getpid()))
        os.kill(process, signal.SIGKILL)

    kill()
    time.sleep(3)  # Ray prints nothing of it; the part is back
    for thread in threads:
        thread.start()
    time.sleep(1)
    kill()
    while not replica.is_loading:
        time.sleep(0.01)
began = time.monotonic()
for thread in threads:
    thread.join()
assert time.monotonic() - began < 5
time.sleep(2.5)  # longer than the time between two looks at the parts
assert len(errors) == 3 and all("leaving the cluster" in one for one in errors), errors
print("left")
"""


def test_a_cluster_is_left_when_no_thread_uses_it_any_more(tmp_path):
    """Ray ends a process that calls it after its shutdown."""
    command = [sys.executable, "-c", LEFT, tmp_path / "codes.npy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


# Send this process a signal while Ray is imported, while a cluster starts, and while it ends; then
# kill the raylet of another cluster.
STOPPED = """
import os, psutil, signal, sys, time
from pathlib import Path
from threading import Thread
from hashsearch.distributed.cluster import cluster, require_node
from hashsearch.errors import ClusterError

class Stopped(Exception):
    pass

def stop(number, frame):
    raise Stopped

def children(name=None):
    found = psutil.Process().children(recursive=True)
    return [one for one in found if name is None or one.name() == name]

def importing():
    return "_raylet.so" in Path("/proc/self/maps").read_text()

def stop_when(is_time):
    while not is_time():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, stop)
for moment in (importing, lambda: children("raylet")):
    Thread(target=stop_when, args=(moment,)).start()
    try:
        with cluster(cores=1):
            sys.exit("the block was entered")
    except Stopped:
        pass
    assert not (left := children()), left
import ray
try:
    with cluster(cores=1):
        node = ray._private.worker._global_node
        private, end = Path(node.get_temp_dir_path()).parent, node.kill_all_processes
        def kill(**how):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            end(**how)
        node.kill_all_processes = kill
    sys.exit("the signal was lost")
except Stopped:
    assert not private.exists()
os.environ |= {"RAY_health_check_period_ms": "300", "RAY_health_check_failure_threshold": "2"}
with cluster(cores=1):
    require_node()
    (raylet,) = children("raylet")
    raylet.kill()
    until = time.monotonic() + 60
    try:
        while time.monotonic() < until:
            require_node()
            time.sleep(0.1)
    except ClusterError as error:
        print(error)
try:
    os.kill(os.getpid(), signal.SIGTERM)  # whose handler is in its place again
except Stopped:
    print("stopped")
"""


def test_a_signal_at_the_start_stops_all_processes_and_a_lost_node_is_noticed():
    command = [sys.executable, "-c", STOPPED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=150)
    assert done.returncode == 0, done.stderr
    lost, stopped = done.stdout.splitlines()
    assert lost.startswith("Ray's process of this machine (raylet) has ended, and ")
    assert stopped == "stopped"
    assert done.stderr.count("stopping, in some seconds") == 3
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1; its address is host:port ("),
        ("somewhere", "no Ray cluster answers at somewhere; its address is host:port ("),
        ("ray://127.0.0.1:10001", "ray://127.0.0.1:10001 is a URL, as of a Ray client server; "),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address, sentence):
    with pytest.raises(ClusterError) as refused, cluster(address):
        pass
    assert str(refused.value).startswith(sentence)


def test_a_machine_of_no_cluster_is_told_how_to_name_one(monkeypatch):
    """The tests' machine may be a node of another program's cluster."""
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError) as refused, cluster("auto"):
        pass
    assert str(refused.value) == (
        "no Ray cluster runs on this machine that --ray-address auto could find; start one by ray "
        "start, or name its address: --ray-address host:port"
    )


def test_a_gallery_is_made_only_once_its_cluster_is_reached(image_files, tmp_path, capsys):
    command = ["index", str(image_files), "--gallery", str(tmp_path / "g"), "--on", "ray"]
    assert main([*command, "--ray-address", "127.0.0.1:1"]) == 1
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_address_goes_with_a_cluster(tmp_path, capsys):
    assert main(["index", "x", "--gallery", str(tmp_path / "g"), "--ray-address", "auto"]) == 1
    assert capsys.readouterr().err == "hashsearch: --ray-address goes with --on ray\n"
