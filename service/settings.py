"""The service's settings, read from the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable HASHSEARCH_<NAME>, which docs/operations.md lists.

    A variable that is empty counts as unset.
    """

    model_config = SettingsConfigDict(env_prefix="HASHSEARCH_", frozen=True, env_ignore_empty=True)

    gallery: Path = Field(description="the gallery that is served")
    max_body_bytes: int = Field(
        default=16 * 2**20, ge=1, description="largest body that is read, in bytes"
    )
    body_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds in which a body must arrive"
    )
    originals: bool = Field(
        default=False,
        description="whether the original files are given to clients, with all that they hold, "
        "such as the place where a photograph was taken",
    )
    original_timeout_s: float = Field(
        default=300.0, gt=0, description="seconds in which a client must take an original file"
    )
    queue: int = Field(
        default=64,
        ge=1,
        description="images, and other requests, that may be at work or wait at a time; "
        "more are answered 503",
    )
