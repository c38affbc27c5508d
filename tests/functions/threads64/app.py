"""Starts 64 threads that all have to be there before any of them may leave."""

import threading

THREADS = 64


def handler(event, context):
    """Return how many threads met at the barrier, and how many numbers they handed out."""
    barrier = threading.Barrier(THREADS, timeout=20)
    places = []

    def meet():
        # wait() gives each thread another number from 0 to 63, once all are there.
        places.append(barrier.wait())

    threads = [threading.Thread(target=meet) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"met": len(places), "different": len(set(places)), "broken": barrier.broken}
