"""The application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import hashsearch
from service.engine import Engine
from service.problems import install_problem_handlers
from service.routes import health, images, pages, search
from service.schemas import Problem
from service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Open the gallery and build the application around it.

    Raises what `Engine` raises, so that a deployment with a broken gallery
    fails at its start and not at its first visitor.
    """
    engine = Engine(settings.gallery)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPI(
        title="HashSearch",
        version=hashsearch.__version__,
        description="Image search in 32 bytes an image.",
        lifespan=lifespan,
        responses={
            "default": {
                "description": "An error, after RFC 9457",
                "model": Problem,
                "content": {"application/problem+json": {}},
            }
        },
    )
    app.state.settings = settings
    app.state.engine = engine
    install_problem_handlers(app)
    for routes in (search, images, health, pages):
        app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    return app
