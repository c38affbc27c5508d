"""A call: one request of an operation, its checked parameters, and what it acts on."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeVar

from miniλ import names
from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.gateway.downloads import DownloadLinks
    from miniλ.gateway.service_model.operations import Operation
    from miniλ.names import Place
    from miniλ.parts import Parts
    from miniλ.store.packages import Upload

T = TypeVar("T")


class Api:
    """What operations act upon: the parts of the supervisor, and what the gateway itself adds."""

    __slots__ = ("base_url", "functions", "links", "parts", "registry", "uploads")

    def __init__(self, parts: Parts, links: DownloadLinks) -> None:
        self.parts = parts
        self.functions = parts.functions
        self.registry = parts.registry
        # The directory of archives, and of requests that are too large for memory.
        self.uploads = parts.state.uploads
        self.links = links
        # Known once a port is bound: http://127.0.0.1:9001
        self.base_url = ""

    def url_of(self, url_id: str) -> str:
        """Return the address of a function URL, which resolves on this machine."""
        return f"{self.base_url}/_url/{url_id}/"


class Call:
    """One request of an operation.

    `params` are its checked parameters by the names of the service model; those that the client
    left out are absent. `place` has the caller's account. `upload` is the archive that came with
    the request; the server removes its file afterwards.
    """

    __slots__ = (
        "api",
        "key_id",
        "operation",
        "params",
        "place",
        "request_id",
        "upload",
        "verify",
    )

    def __init__(
        self,
        api: Api,
        operation: Operation,
        params: dict[str, Any],
        place: Place,
        request_id: str,
        key_id: str,
    ) -> None:
        self.api = api
        self.operation = operation
        self.params = params
        self.place = place
        self.request_id = request_id
        self.key_id = key_id
        self.upload: Upload | None = None
        # If keys are configured: to be called with the sha256 (hex) of the body once it is read.
        self.verify: Callable[[str], None] | None = None

    def function(self) -> tuple[str, str]:
        """Return name and qualifier ("" for none) of the function in the request."""
        params = self.params
        return names.function(params["FunctionName"], params.get("Qualifier"), self.place)

    def name(self) -> str:
        """Return the name of the function in the request; raises if it has a qualifier."""
        return names.unqualified(self.params["FunctionName"], self.place)


def page(
    call: Call, items: list[T], key: str, document: Callable[[T], Any], most: int = 50
) -> dict[str, Any]:
    """Return one page of a list as {key: [document(item), ...], NextMarker}.

    A marker names the next item, so a client that deletes what a page shows misses nothing. If the
    next item was deleted too, its index counts. Only items on the page are made into documents.
    """
    params = call.params
    start = _start(params["Marker"], items) if params.get("Marker") else 0
    size = min(params.get("MaxItems", most), most)
    after = start + size
    answer: dict[str, Any] = {key: [document(item) for item in items[start:after]]}
    if after < len(items):
        answer["NextMarker"] = base64.urlsafe_b64encode(
            f"{after} {_identity(items[after])}".encode()
        ).decode()
    return answer


def _start(marker: str, items: list[Any]) -> int:
    """Return the index of the item that a marker names; if it is deleted, the index that it had."""
    try:
        index_text, _, identity = base64.urlsafe_b64decode(marker).decode().partition(" ")
        start = int(index_text)
    except ValueError as exc:
        msg = f"Invalid marker: {marker[:200]!r}; take NextMarker as it is"
        raise InvalidParameterValue(msg) from exc
    # Deletions before the item have moved it toward the front, never toward the end.
    for index in range(min(start, len(items) - 1), -1, -1):
        if _identity(items[index]) == identity:
            return index
    return max(0, start)


def _identity(item: object) -> str:
    """Return the text by which a marker knows an item of a list."""
    if isinstance(item, tuple):
        item = item[0]
    if isinstance(item, dict):
        return str(item["UUID"])
    if isinstance(item, str):
        return item
    return f"{getattr(item, 'name', '')}:{getattr(item, 'version', '')}"
