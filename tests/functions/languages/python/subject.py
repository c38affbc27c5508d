"""What a Python program of a function may do: threads, garbage, processes, sockets, a timer.

It prints what it found, a line each.
"""

import asyncio
import ctypes
import gc
import mmap
import multiprocessing
import os
import signal
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor


def threads():
    """Threads that the collector and the profiler's timer interrupt."""
    stop = threading.Event()
    spinning = [threading.Thread(target=spin, args=(stop,)) for _ in range(4)]
    for thread in spinning:
        thread.start()
    collections = 0
    for _ in range(10):
        gc.collect()
        collections += 1
    stop.set()
    for thread in spinning:
        thread.join()
    return collections


def spin(stop):
    while not stop.is_set():
        pass


def tree(depth):
    # A cycle each: only the collector frees them.
    node = [tree(depth - 1), tree(depth - 1)] if depth else []
    node.append(node)
    return node


def count(node):
    return 1 + sum(count(part) for part in node if part is not node)


def garbage():
    """Half of the trees in threads, half in a process of their own: no semaphore, as on Lambda."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=count_trees, args=(there,))
    process.start()
    count_trees(there)
    process.join()
    return here.recv() + here.recv()


def count_trees(pipe):
    with ThreadPoolExecutor(4) as pool:
        pipe.send(sum(pool.map(lambda _: count(tree(11)), range(50))))


def file():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "a")
        with open(path, "w") as file:
            file.write("x" * (1 << 20))
        os.rename(path, path + "b")
        with open(path + "b", "rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return f"{len(mapped)} {mapped[:1].decode()}"


async def sockets():
    """Eight clients at once."""
    async def echo(reader, writer):
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()

    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        heard = await reader.readexactly(5)
        writer.close()
        return heard.decode()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        return "".join(await asyncio.gather(*(ask() for _ in range(8))))


def child():
    command = ["sh", "-c", "cat; exit 3"]
    done = subprocess.run(command, input="said", stdout=subprocess.PIPE, text=True, check=False)
    return f"{done.stdout} {done.returncode}"


def signalled():
    caught = []
    signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    os.kill(os.getpid(), signal.SIGTERM)
    return signal.Signals(caught[0]).name


def seccomp():
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("Seccomp:"))


def denied():
    """Of no namespace: the kernel refuses that to nobody."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.unshare(0) else 0


def main():
    ticks = []
    signal.signal(signal.SIGPROF, lambda number, frame: ticks.append(number))
    signal.setitimer(signal.ITIMER_PROF, 0.005, 0.005)
    print("threads", threads())
    print("garbage", garbage())
    print("file", file())
    print("socket", asyncio.run(sockets()))
    print("child", child())
    print("signal", signalled())
    signal.setitimer(signal.ITIMER_PROF, 0)
    assert ticks, "the timer was silent"
    print("seccomp", seccomp())
    print("unshare", denied())


if __name__ == "__main__":
    main()
