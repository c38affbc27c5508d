"""Splits its work over child processes: multiprocessing with pipes, and subprocess."""

import multiprocessing
import os
import subprocess
import sys


def square(connection, number):
    """Print and send the square of a number: runs in a child."""
    # One write: the lines of several processes would else mix.
    sys.stdout.write(f"child squares {number}\n")
    sys.stdout.flush()
    connection.send((number * number, os.getpid()))
    connection.close()


def handler(event, context):
    """Return the squares of `numbers`, one process each, and what a subprocess printed."""
    method = multiprocessing.get_context(event.get("method"))
    children = []
    for number in event["numbers"]:
        ours, theirs = method.Pipe(duplex=False)
        process = method.Process(target=square, args=(theirs, number))
        process.start()
        theirs.close()
        children.append((process, ours))
    answers = [ours.recv() for _, ours in children]
    for process, ours in children:
        process.join()
        ours.close()
    program = "import os; print(os.environ['AWS_LAMBDA_FUNCTION_NAME'], 6 * 7)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    subprocess.run([sys.executable, "-c", "print('subprocess was here')"], check=True)
    return {
        "squares": [answer for answer, _ in answers],
        "processes": len({pid for _, pid in answers} | {os.getpid()}),
        "exit_codes": [process.exitcode for process, _ in children],
        "subprocess": done.stdout.strip(),
    }
