"""The layout of the project: short files, small rooms, a test for each module, one name a class.

Rule for unit tests: tests/unit/ROOM/test_X.py has its subject in miniλ/ROOM. Either miniλ/ROOM/X.py
or the room miniλ/ROOM/X exists; or X begins with the name of one and an underscore (test_queue_disk
is of queue); or the file's docstring names a module of that room in backticks (`queue`).

Rule for modules: each has a unit test by this rule, or is in `TESTED_ELSEWHERE` with the test that
covers it. A module that has a unit test is not in the list, so the list shrinks and a new module
begins with a unit test.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import PROOFS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "miniλ"
UNIT = ROOT / "tests" / "unit"
MAX_LINES = 600
# Subjects of these are the whole project: its prose, its layout, its README, its imports.
OF_THE_PROJECT = {
    "test_alias",
    "test_benchmarks",
    "test_layout",
    "test_lazy_import",
    "test_prose",
    "test_readme",
}
# A room has about six to twelve files. These have more, for a reason.
MAX_FILES = 12
LARGE_ROOMS = {
    "miniλ": "the nouns, and what wires the rooms: its order is the import contract's",
    "miniλ/gateway": "one file for each noun of Lambda's API",
    "miniλ/sandbox": "one file for each mechanism of Linux",
    "miniλ/worker": "one process from start to end, whose parts know each other's invariants",
}
# Modules without a unit test, and the test below tests/ that covers each.
TESTED_ELSEWHERE = {
    # Commands are programs: their tests start them.
    "cli/client": "api/test_cli_endpoint.py",
    "cli/doctor": "machine/test_cli.py",
    "cli/exit_codes": "machine/test_cli.py",
    "cli/invoke": "machine/test_cli.py",
    "cli/local_commands": "machine/test_cli.py",
    "cli/main": "machine/test_cli.py",
    "cli/options": "machine/test_cli.py",
    "cli/remote_commands": "api/test_cli_client.py",
    "cli/run_loop": "machine/test_cli.py",
    # What wires parts that have workers, or acts on them.
    "code_store": "machine/test_embedding.py",
    "decorated": "machine/test_embedding_apps.py",
    "functions": "machine/test_versions.py",
    "invoker": "machine/test_embedding.py",
    "parts": "machine/test_embedding.py",
    "supervisor": "machine/test_embedding.py",
    "events/delivery": "machine/test_delivery.py",
    # Operations: their callers are AWS's clients, and their tests ask a server.
    "gateway/attributes": "api/test_attributes.py",
    "gateway/routes": "api/test_key_permissions.py",
    "gateway/call": "api/test_bodies.py",
    "gateway/concurrency": "api/test_concurrency.py",
    "gateway/configurations": "api/test_functions.py",
    "gateway/downloads": "api/test_downloads.py",
    "gateway/event_invoke": "api/test_event_invoke.py",
    "gateway/functions": "api/test_functions.py",
    "gateway/http/answers": "api/test_malformed.py",
    "gateway/http/auth": "api/test_auth.py",
    "gateway/http/bodies": "api/test_bodies.py",
    "gateway/http/loopback": "api/test_loopback.py",
    "gateway/layers": "api/test_layers.py",
    "gateway/mappings": "api/test_mappings.py",
    "gateway/not_offered": "api/test_attributes.py",
    "gateway/policies": "api/test_policies.py",
    "gateway/server": "api/test_malformed.py",
    "gateway/uploads": "api/test_uploads.py",
    "gateway/urls/configs": "api/test_urls.py",
    "gateway/urls/serve": "api/test_url_answers.py",
    "gateway/versions": "api/test_versions.py",
    # The pool has live workers; what it decides is in `plan`.
    "pool/capacity": "machine/test_concurrency.py",
    "pool/inherited_tmp": "machine/test_faults.py",
    "pool/limit_poll": "machine/test_limits.py",
    "pool/pool": "machine/test_concurrency.py",
    # What a function sees, from inside.
    "runtimes/catalog": "api/test_function_states.py",
    # The far side of fork: its tests are escapes that a worker tries.
    "sandbox/namespaces": "machine/test_sandbox.py",
    "sandbox/probe": "machine/test_sandbox_settings.py",
    "sandbox/processes": "machine/test_sandbox_kills.py",
    "sandbox/rlimits": "machine/test_limits.py",
    "sandbox/start": "machine/test_lifecycle.py",
    "sandbox/users": "machine/test_sandbox.py",
    "sandbox/zygote_main": "machine/test_lifecycle.py",
    # A worker is a process: its tests start, freeze and kill it.
    "worker/affinity": "machine/test_affinity.py",
    "worker/init_phase": "machine/test_init_phase.py",
    "worker/isolation": "machine/test_sandbox_settings.py",
    "worker/launch": "machine/test_lifecycle.py",
    "worker/process_tree": "machine/test_hung_disks.py",
    "worker/tmp_dirs": "machine/test_sandbox.py",
    "worker/worker": "machine/test_lifecycle.py",
    "worker/zygote": "machine/test_lifecycle.py",
    # The unit test of a neighbour covers it.
    "gateway/service_model/inputs": "unit/gateway/service_model/test_validate.py",
    "sandbox/hierarchies": "unit/sandbox/test_cgroups.py",
    "store/database": "unit/store/test_writer.py",
    "store/resources": "unit/store/test_registry.py",
}
FILES = sorted(
    path
    for place in ("miniλ", "minilambda", "workers", "benchmarks", "tests", "examples")
    for path in (ROOT / place).rglob("*.py")
)
UNIT_TESTS = [path for path in sorted(UNIT.rglob("test_*.py")) if path.stem not in OF_THE_PROJECT]


def test_no_file_is_longer_than_600_lines() -> None:
    """The list is the files to split."""
    lengths = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in FILES
    }

    assert {} == {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_a_room_has_at_most_12_files() -> None:
    """But for the rooms in `LARGE_ROOMS`; the list is what to split."""
    rooms = Counter(
        str(path.parent.relative_to(ROOT))
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("__")
    )

    assert sorted(LARGE_ROOMS) == sorted(room for room, files in rooms.items() if files > MAX_FILES)


def subjects(test: Path) -> set[str]:
    """Return the modules, or rooms, that a unit test is of by the rule: `worker/wire`."""
    room = test.parent.relative_to(UNIT)
    modules = {
        path.stem for path in (PACKAGE / room).iterdir() if path.suffix == ".py" or path.is_dir()
    }
    docstring = ast.get_docstring(ast.parse(test.read_text(encoding="utf-8"))) or ""
    subject = test.stem.removeprefix("test_")
    in_docstring = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", docstring)}
    by_name = {name for name in modules if subject == name or subject.startswith(f"{name}_")}
    return {str(room / name) for name in by_name | (modules & in_docstring)}


@pytest.mark.parametrize("test", UNIT_TESTS, ids=lambda path: str(path.relative_to(UNIT)))
def test_a_unit_test_is_in_the_room_of_its_subject(test: Path) -> None:
    """By the rule above."""
    assert subjects(test), "names no module of its room"


def test_a_module_has_a_unit_test() -> None:
    """Or it is in `TESTED_ELSEWHERE`; a module that has one is not."""
    modules = {
        str(path.relative_to(PACKAGE).with_suffix(""))
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("__") and "probes" not in path.parts
    }
    untested = modules - set().union(*map(subjects, UNIT_TESTS))

    assert [] == sorted(untested - set(TESTED_ELSEWHERE)), "give it a unit test"
    assert [] == sorted(set(TESTED_ELSEWHERE) - untested), "take it out of TESTED_ELSEWHERE"


def test_the_tests_elsewhere_exist() -> None:
    """A test file that moved has moved in the list, too."""
    tests = UNIT.parent

    assert [] == [name for name in TESTED_ELSEWHERE.values() if not (tests / name).is_file()]


def test_a_proof_is_a_test() -> None:
    """Each name in tests/conftest.py's PROOFS is a function of a test file."""
    sources = [path.read_text(encoding="utf-8") for path in FILES if path.stem.startswith("test_")]

    assert set() == {
        name for name in PROOFS if not any(f"def {name}(" in source for source in sources)
    }


def test_a_class_name_is_one_class() -> None:
    """No name of a class is defined twice in the package."""
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        if "probes" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )

    assert [] == [name for name, count in names.items() if count > 1]
