"""Query by image, id or code: one method's answer, or all of them side by side."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.body import QUERY_BODY_SCHEMA
from service.routes.dependencies import TheEngine, TheQuery
from service.schemas import CompareAnswer, CompareParameters, SearchAnswer, SearchParameters

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/search", openapi_extra=dict(QUERY_BODY_SCHEMA))
def search(
    engine: TheEngine,
    query: TheQuery,
    parameters: Annotated[SearchParameters, Query()],
) -> SearchAnswer:
    """Find the gallery's nearest images."""
    return engine.search(query, parameters)


@router.post("/compare", openapi_extra=dict(QUERY_BODY_SCHEMA))
def compare(
    engine: TheEngine,
    query: TheQuery,
    parameters: Annotated[CompareParameters, Query()],
) -> CompareAnswer:
    """Find the nearest images by each method, and how much the methods agree."""
    return engine.compare(query, parameters)
