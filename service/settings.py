"""The service's settings, read from the environment."""

import difflib
import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hashsearch.errors import HashSearchError
from service.limits import rate_of
from service.proxies import OWN, is_prefix
from service.validation import invalid_field, worst


class InvalidSetting(HashSearchError):
    """A setting whose value cannot be used."""

    def __init__(self, name: str, wanted: str):
        """name: of the field. wanted: says what is wanted, without a secret."""
        super().__init__(f"the setting HASHSEARCH_{name.upper()} cannot be used: {wanted}")


def checked_prefix(text: str) -> str:
    """A path prefix such as /pictures. Raises ValueError."""
    if not OWN.isdisjoint(text.split("/")[1:2]):
        raise ValueError(
            "a path such as /pictures is wanted; this one begins like a path of the service"
        )
    if not is_prefix(text):
        raise ValueError(
            "a path such as /pictures is wanted, of letters, digits and . _ ~ - between slashes, "
            "without a slash at its end"
        )
    return text


def _checked_rate(text: str) -> str:
    rate_of(text)
    return text


def _without_host_bits(text: str) -> str:
    """The text. IPvAnyNetwork refuses what is no network at all, and host bits without a reason."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return text
    address, _, _ = text.partition("/")
    if network.num_addresses > 1 and ip_address(address) != network.network_address:
        raise ValueError(
            f"{address} is an address within {network}; name that network, or the address alone"
        )
    return text


def _checked_origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?", text):
        raise ValueError(
            "origins such as https://example.org are wanted, in lower case and without a path"
        )
    return text


def _listed(given: object) -> object:
    """The parts of a text that are set apart by commas."""
    if isinstance(given, str):
        return [part.strip() for part in given.split(",") if part.strip()]
    return given


_LISTED = (NoDecode, BeforeValidator(_listed))


class Settings(BaseSettings):
    """Each field is the environment variable HASHSEARCH_<NAME>, which docs/operations.md lists.

    A variable that is empty counts as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix="HASHSEARCH_", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    gallery: Path = Field(description="the gallery that is served")
    max_body_bytes: int = Field(
        default=16 * 2**20, ge=1, description="largest body that is read, in bytes"
    )
    body_timeout_s: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds in which a header must arrive, then a body, and in which a "
        "client must read the next part of an answer",
    )
    originals: bool = Field(
        default=False,
        description="whether the original files are given to clients, with all that they hold, "
        "such as the place where a photograph was taken",
    )
    original_timeout_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds in which a client must take an original file; one that takes less "
        "than about 80 kB in 10 seconds is cut off earlier",
    )
    queue: int = Field(
        default=64,
        ge=1,
        description="images, and other requests, that may be at work or wait at a time; "
        "more are answered 503",
    )
    root_path: Annotated[str, AfterValidator(checked_prefix)] = Field(
        default="", description="path prefix under which a proxy shows the service, as /pictures"
    )
    trusted_proxies: Annotated[
        tuple[Annotated[IPvAnyNetwork, BeforeValidator(_without_host_bits)], ...], *_LISTED
    ] = Field(
        default=(),
        description="addresses and networks, set apart by commas, of the proxies whose "
        "X-Forwarded- headers count",
    )
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="keys, set apart by commas, each of at least 16 characters; "
        "without a key, writes are off",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="a file of more keys, one a line; lines that begin with # are comments",
    )
    key_for: Literal["writes", "all"] = Field(
        default="writes", description="what needs a key: writes, or all but probes and docs"
    )
    rate_limit: Annotated[str, AfterValidator(_checked_rate)] | None = Field(
        default=None, description="most requests of a client, as 100/minute; unlimited if unset"
    )
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_checked_origin)], ...], *_LISTED
    ] = Field(
        default=(),
        description="origins, set apart by commas, whose pages may use the service; * for all",
    )
    partial: bool = Field(
        default=False,
        description="whether a search that lacks a part of the codes, of a gallery on a cluster, "
        "is answered without it, with `partial: true`; otherwise it is answered 503",
    )
    stop_timeout_s: float = Field(
        default=5.0,
        ge=1,
        allow_inf_nan=False,
        description="seconds in which requests may be finished after the service is stopped",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="format of the log: `json`, `text`, or `auto`, which is text on a terminal "
        "and JSON otherwise",
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)
    ] = Field(
        default="info",
        description="least severe lines that are logged: `debug`, `info`, `warning` or `error`",
    )


def invalid_setting(error: ValidationError) -> InvalidSetting:
    """Describe the first setting that was refused, without its value."""
    finding = error.errors(include_url=False, include_input=False)[0]
    name, *entry = finding["loc"]
    if finding["type"] == "value_error":  # a sentence of ours
        wanted = str(finding["ctx"]["error"])
    else:
        refused = invalid_field(worst(error), Settings, {})
        subject = f"entry {int(entry[0]) + 1}" if entry else "it"
        wanted = subject + str(refused).removeprefix(refused.parameter or "")
    return InvalidSetting(str(name), wanted)


# Of other programs of the project.
_OTHERS = ("DATA",)


def unknown_variables(names: Iterable[str]) -> list[str]:
    """One sentence for each environment variable that looks like a setting and is none."""
    known = [*(name.upper() for name in Settings.model_fields), *_OTHERS]
    sentences = []
    for name in sorted(names):
        prefix, _, rest = name.upper().partition("_")
        if prefix == "HASHSEARCH" and rest not in known:
            near = difflib.get_close_matches(rest, known, n=1)
            meant = f"; did you mean HASHSEARCH_{near[0]}?" if near else ""
            sentences.append(f"{name} is no setting{meant}")
    return sentences
