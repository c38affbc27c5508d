"""The command line: `python -m benchmarks invoke --peers all --json out.json`.

Progress goes to stderr if that is a terminal; the result is a table on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import subprocess
import sys

from benchmarks import (
    catalog,
    cold,
    density,
    document,
    events,
    http,
    invoke,
    plot,
    report,
    rounds,
    throughput,
)

BENCHMARKS = {
    "invoke": invoke.run,
    "cold": cold.run,
    "throughput": throughput.run,
    "density": density.run,
    "http": http.run,
    "events": events.run,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure miniλ, its floors and its peers in one run.",
        epilog="`python -m benchmarks document FILE ...` makes docs/benchmarks.md from the JSON.",
    )
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument(
        "--peers",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=[*catalog.NAMES, "all"],
        help=f"beside {catalog.POOL}: all, or some of {', '.join(catalog.NAMES)}",
    )
    parser.add_argument(
        "--install-peers",
        action="store_true",
        help="install the peers (all, unless --peers names some) below the cache directory",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds: at most 10 s")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured; - is stdout")
    parser.add_argument("--plot", metavar="FILE", help="draw the result, as .png or .svg")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a promise is broken")
    return parser.parse_args()


def main() -> int:
    """Run one benchmark and report it; return the exit status."""
    if sys.argv[1:2] == ["document"]:
        return document.main(sys.argv[2:])
    chosen = _arguments()
    if chosen.plot and not plot.is_possible():
        print(plot.MISSING, file=sys.stderr)
        return 2
    every_peer = "all" in chosen.peers or (chosen.install_peers and not chosen.peers)
    names = catalog.NAMES if every_peer else list(dict.fromkeys(chosen.peers))
    if chosen.install_peers:
        for name in names:
            rounds.progress(f"installing {name}")
            try:
                catalog.install(name)
            except (subprocess.CalledProcessError, OSError, LookupError) as exc:
                rounds.progress("")
                print(f"{name} cannot be installed: {exc}", file=sys.stderr)
        rounds.progress("")
    machine = report.machine()
    try:
        result = _run(BENCHMARKS[chosen.benchmark](names, quick=chosen.quick))
    except (KeyboardInterrupt, asyncio.CancelledError):
        rounds.progress("")
        print("stopped", file=sys.stderr)
        return 130
    measured = report.Document(machine, chosen.quick, result, _command(chosen))
    if chosen.json != "-":
        print(report.show(measured))
    if chosen.json:
        report.save(measured, chosen.json)
    if chosen.plot:
        plot.save(measured, chosen.plot)
    return int(chosen.check and not all(each.kept for each in result.promises))


def _command(chosen: argparse.Namespace) -> str:
    """Return the command that measures the same again."""
    parts = ["python -m benchmarks", chosen.benchmark]
    if chosen.peers:
        parts += ["--peers", *chosen.peers]
    if chosen.quick:
        parts.append("--quick")
    return " ".join(parts)


def _run(benchmark: object) -> report.Result:
    """Run a benchmark on the same loop as miniλ's; a signal ends it and all that it started."""
    new_loop = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - only if it has a wheel

        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_stoppable(benchmark))


async def _stoppable(benchmark: object) -> report.Result:
    task = asyncio.ensure_future(benchmark)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    return await task


if __name__ == "__main__":
    sys.exit(main())
