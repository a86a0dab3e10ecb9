"""Where the log goes, and how its lines look."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

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
        "formatters": {"json": {"()": _Json}, "text": {"()": _Text}},
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


class _Json(logging.Formatter):
    """One object a line: time, level, logger, message, the record's `fields`, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Text(logging.Formatter):
    """One line a record, and the traceback of an error."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's name
        line = super().formatMessage(record)
        return _escaped(line)

    def formatException(self, ei: Any) -> str:  # noqa: N802, logging's name
        return "\n".join(_escaped(line) for line in super().formatException(ei).split("\n"))


def _escaped(line: str) -> str:
    """Without control characters, which would forge lines or command the terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
