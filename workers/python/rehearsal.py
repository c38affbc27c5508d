"""The handler that every worker runs once before its function's own: see `stand_by`."""


def handler(event, _context):  # noqa: ANN001, ANN201 - as handlers are
    """Return the event."""
    return event
