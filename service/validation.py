"""Sentences for parameters and bodies that pydantic refuses."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from hashsearch.errors import HashSearchError

# By pydantic's kind of error: what is said of the parameter, with values of its context.
_SENTENCES = {
    "greater_than_equal": "is at least {ge}",
    "greater_than": "is greater than {gt}",
    "less_than_equal": "is at most {le}",
    "less_than": "is less than {lt}",
    "int_parsing": "is a whole number",
    "int_type": "is a whole number",
    "int_from_float": "is a whole number",
    "int_parsing_size": "is a whole number of fewer digits",
    "float_parsing": "is a number",
    "bool_parsing": "is true or false",
    "bool_type": "is true or false",
    "string_type": "is a text",
    "string_too_short": "is empty",
    "string_too_long": "has at most {max_length} characters",
    "string_pattern_mismatch": "does not have the wanted form",
    "string_unicode": "is a text in UTF-8",
    "list_type": "is a list",
    "too_long": "has at most {max_length} entries",
    "too_short": "has at least {min_length} entries",
    "dict_type": "is an object",
    "model_type": "is an object",
    "model_attributes_type": "is an object",
    "finite_number": "must be a finite number",
    "ip_any_network": "must be an address or a network, such as 192.0.2.1 or 10.0.0.0/8",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "value_error": "{error}",
}
_WHERE = ("query", "body", "path", "header")  # what FastAPI begins a location with
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")  # another is not repeated


class InvalidParameter(HashSearchError):
    """A value in the query string, the path or the JSON body that cannot be used.

    parameter: its name, if it is one parameter or field.
    """

    def __init__(self, sentence: str, parameter: str | None = None):
        super().__init__(sentence)
        self.parameter = parameter


def invalid_parameter(
    error: ValidationError | RequestValidationError, known: Sequence[str]
) -> InvalidParameter:
    """Describe pydantic's first finding in one sentence, without the value that was sent.

    known: names of the parameters or fields that there are.
    """
    finding = error.errors()[0]
    place = [part for part in finding["loc"] if part not in _WHERE]
    name = str(place[0]) if place and _NAME.fullmatch(str(place[0])) else None
    if finding["type"] == "extra_forbidden":
        return InvalidParameter(_unknown(place, known), name)
    return InvalidParameter(_sentence(finding, place, name), name)


def _unknown(place: Sequence[int | str], known: Sequence[str]) -> str:
    name = str(place[-1]) if place else ""
    if not _NAME.fullmatch(name):
        return "there is a parameter with an unknown name"
    lower = {one.lower(): one for one in known}
    near = lower.get(name.lower()) or next(
        iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None
    )
    return f"unknown parameter '{name}'" + (f"; did you mean '{near}'?" if near else "")


def _sentence(finding: Any, place: Sequence[int | str], name: str | None) -> str:
    if len(place) > 1 and isinstance(place[1], int):  # one entry of a list
        name = f"entry {place[1]} of {name}"
        if len(place) > 2 and place[0] not in ("like", "unlike"):
            name = f"{place[2]} of {name}"
        elif len(place) > 2:  # of several types, one of which it has to be
            return f'{name} is an id, a code, or an object like {{"image_base64": "..."}}'
    wanted = _SENTENCES.get(finding["type"])
    if wanted is None:
        return f"{name or 'the body'}: {finding['msg'].lower()}"
    sentence = wanted.format(**finding.get("ctx", {}))
    return sentence if finding["type"] == "value_error" else f"{name or 'the body'} {sentence}"
