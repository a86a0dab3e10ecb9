"""The application."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

import hashsearch
from hashsearch.retrieval.bases import IN_MEMORY, Bases
from service.auth import KeyForAll, Keys, keys_of
from service.body import BodyMemory
from service.engine import Engine
from service.grouping import Duplicates
from service.headers import SecurityHeaders
from service.labels import LabelCounts
from service.lanes import Lanes
from service.limits import RateLimited, rate_of
from service.metrics import Metrics
from service.observe import Observed
from service.openapi import described
from service.problems import install_problem_handlers
from service.proxies import Proxied
from service.routes import codes, duplicates, gallery, health, images, metrics, pages, search
from service.searching import search_each
from service.settings import Settings
from service.together import Together

_log = logging.getLogger(__name__)

_BATCHES = 4  # of plain searches that wait for a cluster at a time

# What pages of other origins, if they are allowed, may send and read.
_CORS: Mapping[str, Any] = {
    "allow_methods": ("GET", "HEAD", "POST", "DELETE"),
    "allow_headers": ("Authorization", "Content-Type", "X-Request-ID"),
    "expose_headers": ("X-Request-ID", "Server-Timing", "Retry-After"),
}


def _log_failure(error: Exception | None) -> None:
    if error is not None:
        _log.error("the gallery cannot be loaded", exc_info=error)


def create_app(
    settings: Settings,
    when_loaded: Callable[[Exception | None], None] = _log_failure,
    bases: Bases = IN_MEMORY,
) -> FastAPI:
    """Open the gallery and build the application for it.

    The gallery is read by another thread once the application starts, and requests that need it
    are refused meanwhile. when_loaded: called once it is read, or with what reading it raised.
    bases: makes the base of the gallery and its indexes.
    Raises InvalidSetting and what `Engine` raises, so that a deployment with a wrong setting or
    a broken gallery fails when it starts and not at its first request.
    """
    keys, figures = keys_of(settings), Metrics()
    on_cluster = bases is not IN_MEMORY
    engine = Engine(settings.gallery, figures.count_batch, bases)
    lanes = Lanes(settings, on_cluster=on_cluster)
    found_duplicates = Duplicates()

    app = FastAPIOffline(  # FastAPI that serves the assets of /docs itself, without a CDN
        docs_url=None,  # a template of ours, without inline scripts
        redoc_url=None,
        redirect_slashes=False,  # Starlette redirects to the host that the client names
        title="HashSearch",
        version=hashsearch.__version__,
        description="Image search in 32 bytes an image.",
        lifespan=_lifespan(engine, lanes, found_duplicates, settings, when_loaded),
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.keys = keys
    app.state.engine = engine
    app.state.lanes = lanes
    app.state.plain = Together(
        lanes.quick, partial(search_each, engine), _BATCHES if on_cluster else 1
    )
    app.state.duplicates = found_duplicates
    app.state.labels = LabelCounts()
    app.state.body_memory = BodyMemory(settings)
    app.state.metrics = figures
    figures.watch(engine, lanes, app.state.body_memory)
    install_problem_handlers(app)
    # Collected, since FastAPI puts a wrapper without a path around each router that it includes.
    routes: list[BaseRoute] = []
    for group in (search, codes, images, duplicates, gallery, health, metrics, pages):
        app.include_router(group.router)
        routes += group.router.routes
    folder = Path(__file__).parent / "static"
    app.mount("/static", GZipMiddleware(StaticFiles(directory=folder)), name="static")
    routes.append(app.routes[-1])
    app.openapi = described(app)  # type: ignore[method-assign]
    _add_middleware(app, settings, keys, figures, routes)
    return app


def _lifespan(
    engine: Engine,
    lanes: Lanes,
    found_duplicates: Duplicates,
    settings: Settings,
    when_loaded: Callable[[Exception | None], None],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What reads the gallery when the application starts, and closes it at the end."""

    def load() -> None:
        started = time.perf_counter()
        try:
            engine.load()
        except Exception as error:  # of any class, if its files are damaged
            when_loaded(error)
            return
        assert engine.served is not None
        seconds, images = time.perf_counter() - started, len(engine.served)
        fields = {"images": images, "seconds": round(seconds, 3)}
        _log.info("gallery loaded: %d images, %.1f s", images, seconds, extra={"fields": fields})
        when_loaded(None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = Thread(target=load, name="loading the gallery", daemon=True)
        loading.start()
        yield
        await asyncio.to_thread(loading.join, settings.stop_timeout_s)
        if not loading.is_alive():  # otherwise what it opened is closed with the process
            await asyncio.to_thread(lanes.close)
            await asyncio.to_thread(found_duplicates.close)
            engine.close()

    return lifespan


def _add_middleware(
    app: FastAPI, settings: Settings, keys: Keys, figures: Metrics, routes: Sequence[BaseRoute]
) -> None:
    """From the inside out: each sees what the next one lets through."""
    if settings.key_for == "all":
        app.add_middleware(KeyForAll, keys=keys)
    if settings.rate_limit is not None:
        app.add_middleware(RateLimited, rate=rate_of(settings.rate_limit))
    cors = partial(CORSMiddleware, allow_origins=settings.cors_origins, **_CORS)
    if settings.cors_origins:
        app.add_middleware(cors)
    app.add_middleware(Proxied, trusted=settings.trusted_proxies, root_path=settings.root_path)
    # It logs the path as it came.
    app.add_middleware(Observed, metrics=figures, routes=routes, readable=cors)
    app.add_middleware(SecurityHeaders, for_other_origins=bool(settings.cors_origins))
