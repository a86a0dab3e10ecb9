"""The page, and the one that describes the HTTP interface."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from hashsearch.closeness import MEANINGS
from hashsearch.codes import code_to_hex
from hashsearch.errors import HashSearchError
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.searcher import Searcher
from service.problems import problem_response, request_id_of
from service.routes.call import Call, Router
from service.stages import STAGES

router = Router(include_in_schema=False)

_EXAMPLES = 25
_SERVICE = Path(__file__).parents[1]
_IMPORTED = re.compile(r'^(?:import|export)\b[^;]*?"\./([^"]+)"', re.MULTILINE)
_templates = Jinja2Templates(_SERVICE / "templates")


@router.get("/")
async def index(request: Request) -> HTMLResponse:
    """The page, with some images of the gallery to start from."""
    call = Call(request)
    try:
        context = await call.quick(lambda: call.engine.ask(_context))
    except HashSearchError as error:
        if "text/html" in request.headers.get("Accept", ""):
            return _refused(request, error)
        raise
    context["root"] = call.context.root_path
    return _templates.TemplateResponse(request, "index.html", context)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI for the OpenAPI document."""
    return _templates.TemplateResponse(request, "docs.html", {"root": request.scope["root_path"]})


def _refused(request: Request, error: HashSearchError) -> HTMLResponse:
    """A problem for people who open the page, with the status and headers that programs get."""
    answer = problem_response(error, request_id_of(request))
    request.state.code = answer.problem.code  # for the log and the metrics
    detail = answer.problem.detail
    context = {
        "root": request.scope["root_path"],
        "sentence": f"{detail[:1].upper()}{detail[1:]}",
    }
    headers = {name: value for name, value in answer.headers.items() if name == "retry-after"}
    return _templates.TemplateResponse(
        request, "problem.html", context, answer.status_code, headers
    )


def _context(searcher: Searcher) -> dict[str, Any]:
    return {
        "images": len(searcher),
        "meanings": MEANINGS,
        "methods": [
            {
                "name": name,
                "title": method.title,
                "image_bytes": method.image_bytes,
                "of_pixels": method.column == "pixels",
                "compared": method.compared,
            }
            for name, method in SERVED.items()
        ],
        "stages": STAGES,
        "modules": _modules(),
        "examples": _sample(searcher, _EXAMPLES),
        "has_pictures": any(map(searcher.gallery.keeps, ("thumbnails", "pixels"))),
    }


@cache
def _modules() -> tuple[str, ...]:
    """The modules that the page's first one imports, and those that they import in turn."""
    found = ["main.js"]
    for name in found:  # which grows meanwhile
        text = (_SERVICE / "static" / "page" / name).read_text(encoding="utf-8")
        found += [one for one in dict.fromkeys(_IMPORTED.findall(text)) if one not in found]
    return tuple(found[1:])


def _sample(searcher: Searcher, count: int) -> dict[int, str]:
    """The codes of random images, by id; they stay the same until the gallery changes."""
    random = np.random.default_rng(searcher.generation)
    ids = random.choice(searcher.ids, min(count, len(searcher.ids)), replace=False)
    return dict(zip(ids.tolist(), map(code_to_hex, searcher.codes(ids)), strict=True))
