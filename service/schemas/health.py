"""Health on the wire."""

from typing import Literal

from pydantic import BaseModel


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The gallery can be searched."""

    status: Literal["ready"] = "ready"
    images: int
