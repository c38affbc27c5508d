"""Asynchronous invocation: how an accepted event runs, and what comes of it.

Rule 1: an accepted event is on disk before its caller gets 202, and until its end is written (in a
state directory that is kept; a temporary one ends with its supervisor).

Rule 2: an event runs at least once; after a crash at any moment it runs again.

Rule 3: what comes of an event is committed with its end.

Reading order:

    delivery       accepts events, runs those that are due, writes their ends
    outcomes       decides what becomes of an event: retry, destination, dead-letter queue
    destinations   the documents that destinations and dead-letter queues get
    queue          the events on disk; its SQL is in queue.sql
    recovery       the readable rows of a damaged file
"""
