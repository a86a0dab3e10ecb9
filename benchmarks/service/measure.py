"""How a service is loaded by wrk, and what single requests and the library alone take."""

import json
import re
import resource
import shutil
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.service.servers import Server, connected

PHOTOGRAPHS, IDS, READY = "photograph", "id", "/readyz"
_LUA = Path(__file__).with_name("load.lua")
_WARM_UP_S = 3


class Kind(NamedTuple):
    """Requests of one kind. what: PHOTOGRAPHS, IDS, or a path that is asked for.

    argument: the file that lists the photographs, or the highest id.
    """

    what: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """One row of the table; what was not measured is None.

    what: the kind of request. by: who answers. connections: requests that are open at once.
    rate: answers a second. p50_ms to max_ms: time until the answer. server_ms, wrk_ms: processor
    time of an answer. beside: what else is asked meanwhile.
    """

    what: str
    by: str
    connections: int
    rate: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    server_ms: float | None = None
    wrk_ms: float | None = None
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Stages:
    """Median milliseconds of requests that are sent one after another.

    by: who answers. whole_ms: until the answer. stages: by the names of the header Server-Timing;
    empty if the server does not send it.
    """

    what: str
    by: str
    whole_ms: float
    stages: dict[str, float]


def missing_wrk() -> str | None:
    """A sentence that says how to install wrk, if it is missing."""
    if shutil.which("wrk"):
        return None
    return "wrk is missing, so the service was not measured; `apt-get install wrk` installs it"


def loaded(server: Server, kind: Kind, connections: int, seconds: int) -> Load:
    """Load a server with requests of one kind, after a warm-up that does not count.

    A load of a second has no warm-up. Raises SystemExit if a request failed.
    """
    if warm_up_s := min(_WARM_UP_S, seconds // 2):
        _finished(server, _wrk(server, kind, connections, warm_up_s))
    cpu_s, wrk_s = server.cpu_s(), _cpu_s_of_children()
    found = _finished(server, _wrk(server, kind, connections, seconds))
    answers = found["requests"] / 1000
    return _load(
        server,
        kind,
        connections,
        found,
        server_ms=(server.cpu_s() - cpu_s) / answers,
        wrk_ms=(_cpu_s_of_children() - wrk_s) / answers,
    )


def loaded_beside(
    server: Server, kind: Kind, connections: int, others: Sequence[Kind], seconds: int
) -> list[Load]:
    """Load a server, and meanwhile send requests of other kinds, one after another.

    Returns the loads by these. Raises SystemExit if a request failed.
    """
    main = _wrk(server, kind, connections, seconds + 1)
    running = [_wrk(server, other, 1, seconds) for other in others]
    found = [_finished(server, process) for process in running]
    _finished(server, main)
    beside = f"{connections} × {kind.what}"
    return [
        _load(server, other, 1, each, beside=beside)
        for other, each in zip(others, found, strict=True)
    ]


def _load(server: Server, kind: Kind, connections: int, found: Any, **known: Any) -> Load:
    return Load(
        kind.what,
        server.by,
        connections,
        found["requests"] / found["seconds"],
        *(found[name] for name in ("p50", "p90", "p99", "max")),
        **known,
    )


def _wrk(server: Server, kind: Kind, connections: int, seconds: int) -> subprocess.Popen[str]:
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_LUA)]
    arguments = [f"http://127.0.0.1:{server.port}", "--", *kind]
    return subprocess.Popen(
        ["wrk", *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finished(server: Server, wrk: subprocess.Popen[str]) -> Any:
    """What wrk printed as JSON."""
    said = wrk.communicate()[0]
    if wrk.returncode:
        raise SystemExit(f"wrk failed: {said}")
    found = json.loads(said.splitlines()[-1])
    failed = {name: count for name, count in found["errors"].items() if count}
    if failed or not found["requests"]:
        kinds = ", ".join(f"{count} × {name}" for name, count in failed.items()) or "no answer"
        raise SystemExit(
            f"{server.by} failed under load ({kinds}); its last messages:\n{server.last_lines()}"
        )
    return found


def _cpu_s_of_children() -> float:
    """Processor seconds of the processes that this one started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def staged(server: Server, what: str, bodies: Sequence[bytes]) -> tuple[Stages, list[bytes]]:
    """Send requests one after another, over one connection.

    Returns their stages, and the bodies of the answers. Raises SystemExit if one is no success.
    """
    media_type = {PHOTOGRAPHS: "image/jpeg", IDS: "application/json"}[what]
    whole, parts, answers = [], defaultdict(list), []
    connection = connected(server)
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", "/v1/search?k=10", body, {"Content-Type": media_type})
        response = connection.getresponse()
        data = response.read()
        whole.append(time.perf_counter() - started)
        if response.status != 200:
            raise SystemExit(f"{server.by} answered with {response.status}: {data.decode()}")
        for name, ms in stages_of(response.getheader("Server-Timing", "")).items():
            parts[name].append(ms)
        answers.append(data)
    connection.close()
    medians = {name: statistics.median(each) for name, each in parts.items()}
    return Stages(what, server.by, 1000 * statistics.median(whole), medians), answers


def stages_of(header: str) -> dict[str, float]:
    """Milliseconds by name of a Server-Timing header: "search;dur=1.2, catalog;dur=0.3"."""
    found = re.findall(r"([\w-]+)[^,]*?;\s*dur=([\d.]+)", header)
    return {name: float(ms) for name, ms in found}


def alone(what: str, search: Callable[[Any], object], queries: Sequence[Any]) -> Load:
    """What the library takes in this process, called by one thread."""
    for query in queries[:3]:
        search(query)
    taken, cpu_s, began = [], time.process_time(), time.perf_counter()
    for query in queries:
        started = time.perf_counter()
        search(query)
        taken.append(1000 * (time.perf_counter() - started))
    return Load(
        what,
        "library, in one thread",
        1,
        len(queries) / (time.perf_counter() - began),
        statistics.median(taken),
        *(statistics.quantiles(taken, n=100, method="inclusive")[at] for at in (89, 98)),
        max(taken),
        server_ms=1000 * (time.process_time() - cpu_s) / len(queries),
    )
