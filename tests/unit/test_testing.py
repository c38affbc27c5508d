"""Tests of what `miniλ.testing` costs in a run of pytest that does not use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"asyncio", "aiohttp", "uvloop", "msgspec", "psutil", "click", "sqlite3"}


def test_the_plugin_imports_nothing_of_the_package() -> None:
    """Beside what pytest itself imports: the package's door and the plugin."""
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
        "import json, pytest; before = set(sys.modules)\n"
        "import miniλ.testing; print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    modules = set(json.loads(done.stdout))

    assert {"miniλ", "miniλ.testing"} == {name for name in modules if name.startswith("miniλ")}
    assert set() == HEAVY & modules
