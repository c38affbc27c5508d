"""Search the inherited memory for secrets of the supervisor and of other functions.

Stopped by zygotes that are started by exec, without an environment, and get no secret. The event
has the secret in two halves: it is whole only where it was leaked.
"""

import os

CHUNK = 1 << 20


def handler(event: dict, context: object) -> dict:
    first, second = event["halves"][0].encode(), event["halves"][1].encode()
    searched = 0
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    with open("/proc/self/maps") as file:
        maps = file.read().splitlines()
    try:
        for line in maps:
            fields = line.split()
            start, _, end = fields[0].partition("-")
            if "r" not in fields[1] or fields[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            if "w" not in fields[1] and fields[-1].startswith("/"):
                continue  # a file's own bytes
            for address in range(int(start, 16), int(end, 16), CHUNK):
                try:
                    size = min(CHUNK + 64, int(end, 16) - address)
                    piece = os.pread(memory, size, address)
                except OSError:
                    break
                searched += len(piece)
                offset = piece.find(first)
                while offset >= 0:
                    after = offset + len(first)
                    if piece[after : after + len(second)] == second:
                        return {"escaped": True, "seen": f"a secret at {address + offset:#x}"}
                    offset = piece.find(first, after)
    finally:
        os.close(memory)
    return {"escaped": False, "seen": f"no secret in {searched >> 20} MB"}
