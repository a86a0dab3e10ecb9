"""Sentences for parameters and bodies that pydantic refuses."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from hashsearch.errors import HashSearchError

# By pydantic's kind of error: what is said of the value, with values of its context.
_SENTENCES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "does not have the wanted form",
    "string_unicode": "must be text in UTF-8",
    "list_type": "must be a list",
    "too_long": "must have at most {max_length} {entries}",
    "too_short": "must have at least {min_length} {entries}",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "finite_number": "must be a finite number",
    "ip_any_network": "must be an address or a network, such as 192.0.2.1 or 10.0.0.0/8",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "value_error": "{error}",
}
_EXAMPLE = 'must be an id, a code, or an object like {"image_base64": "..."}'
_EXAMPLES = ("like", "unlike")  # lists of examples, which may be of several types
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")  # another is not repeated
_SHORTEST = 3  # letters of a name's beginning, by which it is recognized


class InvalidParameter(HashSearchError):
    """A value in the query string, the path or the JSON body that cannot be used.

    parameter: the name of the parameter or field; of a field within another, its path, such as
    images.0.label; None if the whole is at fault.
    """

    def __init__(self, sentence: str, parameter: str | None = None):
        super().__init__(sentence)
        self.parameter = parameter


def invalid_parameter(
    error: ValidationError, model: type[BaseModel], elsewhere: Mapping[str, str]
) -> InvalidParameter:
    """Describe a query string that is not the model's, without a value that was sent.

    elsewhere: names of other places, and where they belong.
    """
    finding = worst(error)
    place = finding["loc"][:1]  # entries of a repeated parameter all have its name
    if finding["type"] == "extra_forbidden":
        return _unknown("parameter", place, list(model.model_fields), elsewhere)
    return _refused(finding, place)


def invalid_field(
    finding: Any, model: type[BaseModel], elsewhere: Mapping[str, str]
) -> InvalidParameter:
    """Describe a JSON body that is not the model's, as `invalid_parameter` does.

    finding: the worst one.
    """
    place = finding["loc"]
    if place and place[0] in _EXAMPLES and len(place) > 1:
        name = _path(place[:2])
        return InvalidParameter(f"{name} {_EXAMPLE}", name)
    if finding["type"] == "extra_forbidden":
        at = _model_at(model, place[:-1])
        return _unknown("field", place, list(at.model_fields), elsewhere if at is model else {})
    return _refused(finding, place)


def invalid_request(error: RequestValidationError) -> InvalidParameter:
    """Describe what FastAPI refuses: a part of the path."""
    finding = error.errors()[0]
    return _refused(finding, finding["loc"][1:])  # after "path"


def worst(error: ValidationError) -> Any:
    """The finding that is reported: an unknown name, which may explain that another is missing."""
    findings = error.errors(include_url=False, include_input=False)
    unknown = (one for one in findings if one["type"] == "extra_forbidden")
    return next(unknown, findings[0])


def _model_at(model: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """The model of the object at a place in a body."""
    for part in place:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in a type such as list[Model] | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _unknown(
    what: str, place: Sequence[int | str], known: Sequence[str], elsewhere: Mapping[str, str]
) -> InvalidParameter:
    """what: parameter or field."""
    name = str(place[-1])
    if not _NAME.fullmatch(name):
        parent = f"in {_path(place[:-1])} " if place[:-1] else ""
        sentence = f"there is a {what} {parent}with an unknown name"
        return InvalidParameter(sentence, _path(place[:-1]) or None)
    path = _path(place)
    if name in elsewhere:
        return InvalidParameter(f"{name} belongs in {elsewhere[name]}", path)
    near = _near(name, known)
    hint = f"; did you mean '{near}'?" if near else ""
    return InvalidParameter(f"unknown {what} '{path}'{hint}", path)


def _near(name: str, known: Sequence[str]) -> str | None:
    """The known name that was meant, if there is one."""
    lower = name.lower()
    for one in known:
        if one.lower() == lower or (len(name) >= _SHORTEST and one.startswith(lower)):
            return one
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)


def _refused(finding: Any, place: Sequence[int | str]) -> InvalidParameter:
    name = _path(place)
    context = finding.get("ctx", {})
    if finding["type"] == "value_error" and not place:  # of the whole, in a sentence of ours
        return InvalidParameter(str(context["error"]))
    subject = name or "the body"
    wanted = _SENTENCES.get(finding["type"])
    if wanted is None:
        return InvalidParameter(f"{subject}: {finding['msg'].lower()}", name or None)
    number = context.get("min_length", context.get("max_length"))
    entries = "entry" if number == 1 else "entries"
    return InvalidParameter(f"{subject} {wanted.format(**context, entries=entries)}", name or None)


def _path(place: Sequence[int | str]) -> str:
    return ".".join(map(str, place))
