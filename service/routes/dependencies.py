"""Dependencies that the routes share."""

from typing import Annotated

from fastapi import Depends, Request

from service.body import parse_query
from service.engine import Engine
from service.schemas import AskedQuery


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


TheEngine = Annotated[Engine, Depends(_engine)]
TheQuery = Annotated[AskedQuery, Depends(parse_query)]
