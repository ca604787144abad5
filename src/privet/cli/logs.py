"""What is logged, on stderr: lines for people, or JSON for whatever collects them, each with the request it is about.

The JSON has the fields of OpenTelemetry's log data model. The law of this module: what one line says of a request
comes from its own task, whatever else is served meanwhile.
"""

import contextvars
import json
import logging
import re
import secrets
import traceback
from datetime import UTC, datetime

from privet.server.asgi import Send

# Each request is served in a task of its own, and what is logged there, however deep, belongs to it.
_request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def log_config(level: str, format: str = "text") -> dict[str, object]:
    """For `logging.config.dictConfig`: everything worth a line; the libraries speak only of what is wrong."""
    formatter = {"()": _JSON} if format == "json" else {"()": _Line, "format": "%(asctime)s %(levelname)s %(message)s"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {"uvicorn": {"level": "WARNING"}, "httpx": {"level": "WARNING"}, "psycopg": {"level": "ERROR"}},
    }


def begin_request(said: bytes | None, send: Send) -> Send:
    """Give the request of this task an id, the one that a proxy has `said` if it is one, and return a `send` that tells
    the client."""
    id = said if said and _REQUEST_ID.fullmatch(said) else secrets.token_hex(8).encode()
    _request.set(id.decode())

    async def tell(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-request-id", id)]}  # type: ignore[misc]
        await send(message)

    return tell  # type: ignore[return-value]


class _Line(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _JSON(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        attributes: dict[str, object] = {"logger.name": record.name}
        if request := _request.get():
            attributes["request.id"] = request
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, trace = record.exc_info
            attributes["exception.type"] = kind.__qualname__
            attributes["exception.message"] = str(error)
            attributes["exception.stacktrace"] = "".join(traceback.format_exception(kind, error, trace))
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return json.dumps(
            {
                "timestamp": time,
                "severity": record.levelname,
                "body": record.getMessage(),
                "attributes": attributes,
            }
        )
