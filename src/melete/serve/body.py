"""The body of a request as a record, whatever content type its client forgot to send."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from melete.serve import problems
from melete.serve.problems import Problem

LARGEST = 32 * 2**20
Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, kind: type[Body], empty: bytes = b"") -> Body:
    """The request's body as a record.

    Raises:
        Problem: it is too large, not JSON, or has a wrong field.
    """
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            raise Problem(413, f"The request body is larger than {LARGEST // 2**20} MiB.", code="too_large")
    try:
        return kind.model_validate_json(bytes(data) or empty)
    except ValidationError as error:
        raise problems.from_validation(kind, error) from error
