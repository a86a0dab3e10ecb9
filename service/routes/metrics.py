"""What a monitoring system reads."""

from fastapi import Request, Response

from service.metrics import MEDIA_TYPE, Metrics
from service.routes.call import Router

router = Router(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus, also while the gallery is loaded and when it is gone."""
    figures: Metrics = request.app.state.metrics
    return Response(figures.exposition(), headers={"Content-Type": MEDIA_TYPE})
