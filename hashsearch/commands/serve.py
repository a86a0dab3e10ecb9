"""`serve`: serve a gallery over HTTP, with its page."""

import argparse
import gc
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from hashsearch.commands.arguments import Commands, add_address, add_command, add_gallery
from hashsearch.errors import HashSearchError


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


def _prefix(text: str) -> str:
    from service.settings import checked_prefix

    try:
        return checked_prefix(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _serve(options: argparse.Namespace) -> int:
    run_service(options.gallery, options.host, options.port, options.root_path)
    return 0


def run_service(gallery: Path, host: str, port: int, root_path: str | None = None) -> None:
    """Serve until a signal stops the process.

    root_path: the path prefix; None takes the variable's.
    Raises HashSearchError at the start if the gallery, the address or a setting cannot be used.
    """
    import uvicorn
    from pydantic import ValidationError

    from service.app import create_app
    from service.connections import connections
    from service.logs import log_config
    from service.memory import return_large_blocks
    from service.settings import Settings, invalid_setting, unknown_variables
    from service.stopping import StoppingServer

    try:
        given: dict[str, Any] = {} if root_path is None else {"root_path": root_path}
        settings = Settings(gallery=gallery, **given)
    except ValidationError as error:
        raise invalid_setting(error) from None
    return_large_blocks()
    failures: list[Exception] = []

    def loaded(error: Exception | None) -> None:
        if error is None:  # from now on, searches are answered
            gc.collect()
            gc.freeze()  # what is loaded stays, and is not looked through at each collection
            if not server.should_exit:  # the service may be stopped while it loads
                print(f"Serving on http://{shown}:{bound_port}/", flush=True)
        else:
            failures.append(error)
            server.should_exit = True

    app = create_app(settings, when_loaded=loaded)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise HashSearchError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    # asyncio sets it of sockets that it opens itself; without it, an answer may wait 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
    server = StoppingServer(config)
    server.run(sockets=[listener])
    if failures:
        (failure,) = failures
        if isinstance(failure, HashSearchError):
            raise failure
        what = f"{type(failure).__name__}: {failure}"
        raise HashSearchError(f"the gallery cannot be loaded: {what}") from failure
