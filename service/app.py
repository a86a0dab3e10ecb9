"""The application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

import hashsearch
from service.engine import Engine
from service.problems import install_problem_handlers
from service.routes import gallery, health, images, pages, search
from service.schemas import Problem
from service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Open the gallery and build the application for it.

    Raises what `Engine` raises, so that a deployment with a broken gallery
    fails when it starts and not at its first request.
    """
    engine = Engine(settings.gallery)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPIOffline(  # FastAPI that serves the assets of /docs itself, without a CDN
        docs_url="/docs",
        redoc_url=None,
        favicon_url="/static/icon.svg",
        title="HashSearch",
        version=hashsearch.__version__,
        description="Image search in 32 bytes an image.",
        lifespan=lifespan,
        responses={
            "default": {
                "description": "An error, after RFC 9457",
                "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
            }
        },
    )
    app.state.settings = settings
    app.state.engine = engine
    install_problem_handlers(app)
    for routes in (search, images, gallery, health, pages):
        app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    return app
