"""The page that compares methods."""

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from hashsearch.closeness import MEANINGS
from hashsearch.retrieval.methods import SERVED
from service.routes.dependencies import TheEngine

router = APIRouter(include_in_schema=False)

_EXAMPLES = 12
_templates = Jinja2Templates(Path(__file__).parents[1] / "templates")


@router.head("/")
@router.get("/")
def index(request: Request, engine: TheEngine) -> HTMLResponse:
    """The comparison page, with some images of the gallery to start from."""
    context = {
        "images": len(engine),
        "titles": [_in_sentence(SERVED[name].title) for name in engine.compared_methods],
        "missing": sorted(
            {
                method.column
                for name, method in SERVED.items()
                if method.compared and name not in engine.compared_methods
            }
        ),
        "meanings": MEANINGS,
        "examples": engine.sample_ids(_EXAMPLES),
    }
    return _templates.TemplateResponse(request, "index.html", context)


def _in_sentence(title: str) -> str:
    return title[:1].lower() + title[1:]
