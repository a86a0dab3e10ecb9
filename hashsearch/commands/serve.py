"""`serve`: serve a gallery over HTTP, with its page."""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch.commands.arguments import (
    Commands,
    add_address,
    add_cluster,
    add_command,
    add_gallery,
    positive,
)
from hashsearch.errors import HashSearchError
from hashsearch.stopping import Terminated, stop_on_sigterm

if TYPE_CHECKING:
    from hashsearch.retrieval.bases import Bases
    from service.settings import Settings

# Seconds after requests were cut off in which they, and the cluster, end in order.
_ENDS_S = 1.0
_CLUSTER_ENDS_S = 30.0
_LOOK_EVERY_S = 5.0  # at the node of the cluster on which the service runs


def add(commands: Commands) -> None:
    serve = add_command(commands, "serve", _serve, "serve a gallery over HTTP, with its page")
    add_gallery(serve)
    add_address(serve)
    serve.add_argument(
        "--root-path",
        metavar="P",
        type=_prefix,
        help="path prefix under which a proxy shows the service, as /pictures",
    )

    add_cluster(serve, "hold and search the codes")
    serve.add_argument(
        "--shards",
        metavar="N",
        type=positive,
        help="with --on ray: parts into which the codes are divided",
    )
    serve.add_argument(
        "--replicas",
        metavar="R",
        type=positive,
        help="with --on ray: copies of each part, on different machines (default: 1)",
    )
    serve.add_argument(
        "--partial",
        action="store_true",
        default=None,
        help="with --on ray: answer without a part that no machine holds, instead of 503",
    )


def _prefix(text: str) -> str:
    from service.settings import checked_prefix

    try:
        return checked_prefix(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _serve(options: argparse.Namespace) -> int:
    given = {"root_path": options.root_path, "partial": options.partial}
    settings = {name: value for name, value in given.items() if value is not None}
    if options.on is None:
        for name in ("shards", "replicas", "ray_address", "partial"):
            if getattr(options, name) is not None:
                raise HashSearchError(f"--{name.replace('_', '-')} goes with --on ray")
        run_service(options.gallery, options.host, options.port, settings)
        return 0
    if options.shards is None:
        raise HashSearchError("--on ray needs --shards N, the number of parts of the codes")
    cluster = OnCluster(options.shards, options.replicas or 1, options.ray_address)
    run_service(options.gallery, options.host, options.port, settings, cluster)
    return 0


@dataclass(frozen=True, slots=True)
class OnCluster:
    """A cluster that holds the codes. parts: of the codes. copies: of each. address: of Ray."""

    parts: int
    copies: int
    address: str | None


@contextmanager
def _bases(on: OnCluster | None, *, partial: bool) -> "Iterator[Bases]":
    """Within the block, the bases of a service can be made."""
    if on is None:
        from hashsearch.retrieval.bases import IN_MEMORY

        yield IN_MEMORY
        return
    from hashsearch.distributed.cluster import cluster

    with _ended_in_order(), cluster(on.address):
        from hashsearch.distributed.bases import ClusterBases  # imports Ray

        yield ClusterBases(on.parts, on.copies, partial=partial)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends the block by an exception, and then the process."""
    before = signal.getsignal(signal.SIGTERM)
    stop_on_sigterm()
    try:
        yield
    except Terminated:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise  # where that has no effect, as in process 1 of a container
    finally:
        signal.signal(signal.SIGTERM, before)


def run_service(
    gallery: Path,
    host: str,
    port: int,
    given: Mapping[str, Any] | None = None,
    on: OnCluster | None = None,
) -> None:
    """Serve until a signal stops the process.

    given: settings that replace the variables'. on: None means that this process holds the codes.
    Raises HashSearchError at the start if the gallery, the address, the cluster or a setting cannot
    be used.
    """
    from pydantic import ValidationError

    from service.settings import Settings, invalid_setting

    try:
        settings = Settings(gallery=gallery, **(given or {}))
    except ValidationError as error:
        raise invalid_setting(error) from None
    with _bases(on, partial=settings.partial) as bases:
        if on is None:
            _run(settings, host, port, bases, _ENDS_S)
        else:
            from hashsearch.distributed.cluster import require_node

            _run(settings, host, port, bases, _CLUSTER_ENDS_S, require_node)


def _run(
    settings: "Settings",
    host: str,
    port: int,
    bases: "Bases",
    ends_s: float,
    require: Callable[[], None] | None = None,
) -> None:
    """Serve. require: is called from time to time; the service ends by the error that it raises."""
    import uvicorn

    from service.app import create_app
    from service.connections import connections
    from service.logs import log_config
    from service.memory import return_large_blocks
    from service.settings import unknown_variables
    from service.stopping import StoppingServer

    return_large_blocks()
    failures: list[Exception] = []

    def loaded(error: Exception | None) -> None:
        if error is None:  # from now on, searches are answered
            gc.collect()
            gc.freeze()  # what is loaded stays, and is not looked through at each collection
            if not server.should_exit:  # the service may be stopped while it loads
                print(f"Serving on http://{shown}:{bound_port}/", flush=True)
        else:
            end(error)

    def end(error: Exception) -> None:
        failures.append(error)
        server.status, server.should_exit = 1, True

    app = create_app(settings, loaded, bases)
    listener = _listener(host, port)
    bound_port = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        http=connections(settings.body_timeout_s),
        access_log=False,  # the service has its own
        proxy_headers=False,
        server_header=False,
        log_config=log_config(settings, is_terminal=sys.stderr.isatty()),
        timeout_graceful_shutdown=settings.stop_timeout_s,  # type: ignore[arg-type]  # a float, too
    )
    for sentence in unknown_variables(os.environ):
        logging.getLogger(__name__).warning(sentence)
    server = StoppingServer(config, ends_s)
    with _watched(require, end):
        server.run(sockets=[listener])
    if failures:
        failure = failures[0]
        if isinstance(failure, HashSearchError):
            raise failure
        what = f"{type(failure).__name__}: {failure}"
        raise HashSearchError(f"the gallery cannot be loaded: {what}") from failure


@contextmanager
def _watched(
    require: Callable[[], None] | None, end: Callable[[Exception], None]
) -> Iterator[None]:
    """Within the block, call `require` from time to time, and `end` by the error that it raises."""
    over = threading.Event()

    def watch(require: Callable[[], None]) -> None:
        try:
            while not over.wait(_LOOK_EVERY_S):
                require()
        except HashSearchError as error:
            end(error)

    if require is not None:
        threading.Thread(target=watch, args=(require,), name="watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises HashSearchError if it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise HashSearchError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    # asyncio sets it of sockets that it opens itself; without it, an answer may wait 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
