"""Keeps a processor busy in pure Python: primes, floating point, a block cipher.

Event: {"operation": "primes" | "floats" | "cipher", "n": how much}. Each answer can be checked.
"""

import math
import struct

MASK = 0xFFFFFFFF
DELTA = 0x9E3779B9  # XTEA's key schedule constant (Needham and Wheeler, 1997)
KEY = bytes(range(16))


def primes(n):
    """Count the primes below `n` by the sieve of Eratosthenes."""
    is_prime = bytearray([1]) * n
    is_prime[:2] = b"\0" * min(2, n)
    for number in range(2, math.isqrt(n) + 1):
        if is_prime[number]:
            for multiple in range(number * number, n, number):
                is_prime[multiple] = 0
    return sum(is_prime)


def floats(n):
    """Sum sin^2 + cos^2 + (sqrt^2 - i) of `n` numbers: it comes to n, but for rounding."""
    total = 0.0
    for number in range(n):
        root = math.sqrt(number)
        total += math.sin(number) ** 2 + math.cos(number) ** 2 + (root * root - number)
    return total


def encrypt(key, block):
    """Encrypt one block of 8 bytes with XTEA, 64 rounds."""
    words = struct.unpack(">4I", key)
    left, right = struct.unpack(">2I", block)
    total = 0
    for _ in range(32):
        mixed = ((right << 4 ^ right >> 5) + right) & MASK
        left = (left + (mixed ^ (total + words[total & 3]))) & MASK
        total = (total + DELTA) & MASK
        mixed = ((left << 4 ^ left >> 5) + left) & MASK
        right = (right + (mixed ^ (total + words[total >> 11 & 3]))) & MASK
    return struct.pack(">2I", left, right)


def cipher(n):
    """Encrypt "ABCDEFGH" `n` times over, each time what came out before; return hex."""
    block = b"ABCDEFGH"
    for _ in range(n):
        block = encrypt(KEY, block)
    return block.hex()


OPERATIONS = {"primes": primes, "floats": floats, "cipher": cipher}


def handler(event, context):
    """Run one operation."""
    return {"result": OPERATIONS[event["operation"]](event["n"])}
