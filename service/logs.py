"""Where the log goes, and how its lines look."""

import logging
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from service.settings import Settings


def log_config(settings: Settings, *, is_terminal: bool) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`: all of the process to stderr.

    is_terminal: whether people read stderr; it decides the format if the settings do not.
    Packages other than this one and the server log warnings and errors alone.
    """
    level = settings.log_level.upper()
    wanted = settings.log_format
    if wanted == "auto":
        wanted = "text" if is_terminal else "json"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": _json}, "text": {"()": _Text}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": wanted,
            }
        },
        "root": {"level": "ERROR" if level == "ERROR" else "WARNING", "handlers": ["stderr"]},
        "loggers": {name: {"level": level} for name in ("hashsearch", "service", "uvicorn")},
    }


def _json() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        rename_fields_keep_missing=False,
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
        timestamp="time",
    )


class _Text(logging.Formatter):
    """One line a record, and the traceback of an error."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's name
        line = super().formatMessage(record)
        # Control characters of a path would forge lines, or command the terminal.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
