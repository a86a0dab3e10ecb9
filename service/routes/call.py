"""What routes are made of: routers that answer HEAD, and what a route works with."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request

from service import searching
from service.auth import Keys
from service.body import Body
from service.context import Context
from service.engine import Engine
from service.grouping import Duplicates
from service.labels import LabelCounts
from service.lanes import Lane, Lanes
from service.metrics import Metrics
from service.parsing import AskedQuery
from service.questions import PlainQuestion, is_plain
from service.schemas.search import ChoiceParameters, CompareAnswer, SearchAnswer, SearchParameters
from service.settings import Settings
from service.together import Together

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_SCANNED_AS_ONE = 10  # examples, which take about as long as one search of another kind
_SHORT = 16_384  # bytes of JSON that the event loop parses itself


class Router(APIRouter):
    """Routes that answer HEAD wherever they answer GET."""

    def get(self, path: str, **options: Any) -> Callable[[F], F]:
        get = super().get(path, **options)
        head = self.head(path, **{**options, "include_in_schema": False})
        return lambda route: head(get(route))


class Call:
    """What a route works with; work runs in the threads of a lane.

    Routes make it themselves: as a dependency of FastAPI's, it would cost as much time as a search.
    """

    def __init__(self, request: Request):
        state = request.app.state
        self.engine: Engine = state.engine
        self.lanes: Lanes = state.lanes
        self._plain: Together[PlainQuestion, SearchAnswer] = state.plain
        self.duplicates: Duplicates = state.duplicates
        self.labels: LabelCounts = state.labels
        self._metrics: Metrics = state.metrics
        self.keys: Keys = state.keys
        self.settings: Settings = state.settings
        self.context = Context(request.state.stages, request.scope.get("root_path", ""))

    def count_partial(self, answer: SearchAnswer | CompareAnswer) -> None:
        if answer.partial:
            self._metrics.count_partial()

    async def quick(self, call: Callable[[], T]) -> T:
        """Run what reads from memory or the catalog."""
        return await self._run(self.lanes.quick, call)

    async def searches(self, call: Callable[[], T], size: int = 1) -> T:
        """Run what may take a second of the processor, and needs no image."""
        return await self._run(self.lanes.searches, call, size)

    async def slow(self, call: Callable[[], T]) -> T:
        """Run what may wait for disks or other writers."""
        return await self._run(self.lanes.slow, call)

    async def pictures(self, call: Callable[[], T], images: int) -> T:
        """Run what decodes or encodes so many images."""
        return await self._run(self.lanes.pictures, call, images)

    async def parsed(self, body: Body, parse: Callable[[], T]) -> T:
        """What `parse` finds in a body; a thread parses a long JSON text."""
        if body.is_json and len(body.data) > _SHORT:
            return await self._run(self.lanes.texts, parse)
        return parse()

    async def search(self, asked: AskedQuery, parameters: SearchParameters) -> SearchAnswer:
        """Search for a query, together with other requests' where it is a plain question."""
        if not is_plain(asked, parameters):
            return await self.ask(
                lambda: searching.search(self.engine, asked, parameters, self.context),
                asked,
                parameters,
            )
        encoded = None
        if asked.image is not None:
            encoded = await self.pictures(
                lambda: searching.encoded_query(self.engine, asked, parameters, self.context), 1
            )
        question = PlainQuestion(asked, parameters, self.context, encoded)
        answer: SearchAnswer = await self._plain(question, self.context.stages)
        return answer

    async def ask(
        self, call: Callable[[], T], asked: AskedQuery, parameters: ChoiceParameters
    ) -> T:
        """Run a search that is not a plain question."""
        if images := asked.images(transforms=parameters.transforms):
            return await self.pictures(call, images)
        size = 1 + (len(asked.like) + len(asked.unlike)) // _SCANNED_AS_ONE
        return await self.searches(call, size)

    async def _run(self, lane: Lane, call: Callable[[], T], size: int = 1) -> T:
        return await lane.run(call, self.context.stages, size)
