"""Errors that a client raises, as one value to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

INVALID = "InvalidParameterValueException"
MISSING = "ResourceNotFoundException"
CONFLICT = "ResourceConflictException"


def refused(operation: Callable[..., Any], **parameters: Any) -> tuple[int, str, str]:
    """Call an operation that must fail; return status, code and message."""
    with pytest.raises(ClientError) as caught:
        operation(**parameters)
    answer = caught.value.response
    error = answer["Error"]
    return answer["ResponseMetadata"]["HTTPStatusCode"], error["Code"], error["Message"]


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the metadata that boto3 adds to it."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}
