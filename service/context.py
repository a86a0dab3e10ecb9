"""What the service knows of a request beside its parameters and its body."""

from dataclasses import dataclass, field

from service.stages import Stages


@dataclass(frozen=True, slots=True)
class Context:
    """A request's stages, and the path prefix under which the service is reached."""

    stages: Stages = field(default_factory=Stages)
    root_path: str = ""

    def thumbnail(self, image_id: int) -> str:
        """The path of an image's thumbnail on this server."""
        return f"{self.root_path}/v1/images/{image_id}/thumbnail"

    def original(self, image_id: int) -> str:
        """The path of an image's file on this server."""
        return f"{self.root_path}/v1/images/{image_id}/original"
