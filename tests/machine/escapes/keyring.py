"""Put a key into a keyring of the kernel, where all workers of a user would find it.

Stopped by seccomp: only user namespaces have keyrings of their own.
"""

from linux import call, first_in_children

PROCESS_KEYRING = -2
GET_KEYRING_ID = 0


def handler(event: dict, context: object) -> dict:
    return first_in_children(
        # The keyring of a process, which ends with it.
        lambda: call("add_key", b"user", b"minilambda", b"x", 1, PROCESS_KEYRING),
        lambda: call("keyctl", GET_KEYRING_ID, PROCESS_KEYRING, 1, 0, 0),
    )
