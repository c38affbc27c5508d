"""Greets: the smallest handler there is."""

import os


def handler(event, context):
    """Return a greeting for `name`."""
    greeting = os.environ.get("GREETING", "Hello")
    return {"message": f"{greeting}, {event.get('name', 'world')}!"}
