"""The service's settings, read from the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """HASHSEARCH_GALLERY, HASHSEARCH_MAX_BODY_BYTES, HASHSEARCH_BODY_TIMEOUT_S.

    A variable that is empty counts as unset.
    """

    model_config = SettingsConfigDict(env_prefix="HASHSEARCH_", frozen=True, env_ignore_empty=True)

    gallery: Path
    max_body_bytes: int = Field(default=16 * 2**20, ge=1)
    body_timeout_s: float = Field(default=30.0, gt=0)
