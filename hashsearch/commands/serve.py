"""`serve`: serve a gallery over HTTP, with its page."""

import argparse
import gc
import socket
from pathlib import Path

from hashsearch.commands.arguments import Commands, add_address, add_command, add_gallery
from hashsearch.errors import HashSearchError

_LAST_REQUESTS_S = 5  # time for unfinished requests when the service is stopped


def add(commands: Commands) -> None:
    serve = add_command(commands, "serve", _serve, "serve a gallery over HTTP, with its page")
    add_gallery(serve)
    add_address(serve)


def _serve(options: argparse.Namespace) -> int:
    run_service(options.gallery, options.host, options.port)
    return 0


def run_service(gallery: Path, host: str, port: int) -> None:
    """Serve until a signal stops the process.

    Raises HashSearchError at the start if the gallery or the address cannot be used.
    """
    import uvicorn
    from pydantic import ValidationError

    from service.app import create_app
    from service.settings import Settings

    try:
        settings = Settings(gallery=gallery)
    except ValidationError as error:
        wrong = ", ".join(f"HASHSEARCH_{part['loc'][0]}".upper() for part in error.errors())
        raise HashSearchError(f"the setting {wrong} cannot be used") from error
    failures: list[Exception] = []

    def loaded(error: Exception | None) -> None:
        if error is None:  # from now on, searches are answered
            gc.collect()
            gc.freeze()  # what is loaded stays, and is not looked through at each collection
            print(f"Serving on http://{shown}:{listener.getsockname()[1]}/", flush=True)
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
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        access_log=False,  # the service has its own
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_REQUESTS_S,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if failures:
        raise failures[0]
