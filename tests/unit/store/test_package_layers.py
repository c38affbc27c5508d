"""Tests of `packages`: layers are merged, later ones over earlier ones."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.store import packages
from miniλ.store.packages import merge, publish
from tests.unit.store.code import contents, layer, linked, tree


def test_layers_are_merged_in_order(store: Path) -> None:
    """A file in both is the later one's; the others are all there."""
    one = layer(store, python__a="1", python__both="1", only="1")
    two = layer(store, python__both="2", python__b="2", empty="/")

    merged = merge([one, two], store)

    expected = {"python__a": "1", "python__both": "2", "python__b": "2", "only": "1", "empty": "/"}
    assert expected == contents(merged)
    assert {"python__a": "1", "python__both": "1", "only": "1"} == contents(one)
    assert {"python__both": "2", "python__b": "2", "empty": "/"} == contents(two)


def test_another_order_is_another_package(store: Path) -> None:
    """The same order is the same package, made once."""
    one, two = layer(store, a="1"), layer(store, a="2")

    merged = merge([one, two], store)
    other = merge([two, one], store)

    assert "2" == (merged / "a").read_text()
    assert "1" == (other / "a").read_text()
    assert merged == merge([one, two], store)
    assert 4 == len(list(store.iterdir()))


def test_merged_layers_cost_no_copies(store: Path) -> None:
    """A published package never changes, so its files can be hard links."""
    one, two = layer(store, a="1"), layer(store, b="2", link="->b")

    merged = merge([one, two], store)

    assert (one / "a").samefile(merged / "a")
    assert (two / "b").samefile(merged / "b")
    assert stat.S_IMODE(merged.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ({"x": "file"}, {"x__y": "2"}, {"x__y": "2"}),
        ({"x__y": "1", "x__z__w": "1"}, {"x": "file"}, {"x": "file"}),
        ({"d__f": "1", "x": "->d"}, {"x__f": "2"}, {"d__f": "1", "x__f": "2"}),
        ({"f": "1", "x": "->f"}, {"x": "2"}, {"f": "1", "x": "2"}),
        ({"d__f": "1", "x__f": "1"}, {"e": "1", "x": "->e"}, {"d__f": "1", "e": "1", "x": "->e"}),
        ({"x": "/"}, {"x": "/", "y": "1"}, {"x": "/", "y": "1"}),
    ],
)
def test_whatever_is_later_takes_the_place(
    store: Path, lower: dict[str, str], upper: dict[str, str], expected: dict[str, str]
) -> None:
    """A file of a directory's, and the reverse; nothing is ever written through a link."""
    parts = [layer(store, **lower), layer(store, **upper)]

    assert expected == contents(merge(parts, store))
    assert [lower, upper] == [contents(part) for part in parts]


def test_links_of_two_layers_do_not_lead_out_together(tmp_path: Path, store: Path) -> None:
    """Each stays inside its own layer, and in the other's directories it would not."""
    one = layer(store, a__b__up="->../..")
    two = Path(publish(linked(tmp_path, "x", "a/b/up/../y"), store).path)
    before = tree(store)

    with pytest.raises(InvalidParameterValue, match="A link leads out of the package: 'x'"):
        merge([one, two], store)

    assert before == tree(store)


def test_layers_that_are_too_large_together_are_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Lambda's words, and what one hides of another counts."""
    one, two = layer(store, a="x" * 600), layer(store, a="y" * 600)
    before = tree(store)
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)
    words = "^Layers consume more than the available size of 1000 bytes$"

    with pytest.raises(InvalidParameterValue, match=words):
        merge([one, two], store)

    assert before == tree(store)


def test_layers_of_another_file_system_are_copied(store: Path) -> None:
    """A file has names on one file system only."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == store.stat().st_dev:
            pytest.skip("/dev/shm is where the temporary directory is")
        far = Path(other) / "far"
        far.mkdir()
        (far / "run").write_bytes(b"x")
        (far / "run").chmod(0o755)
        (far / "link").symlink_to("run")

        merged = merge([far, layer(store, a="1")], store)

    assert {"run": "x", "link": "->run", "a": "1"} == contents(merged)
    assert stat.S_IMODE((merged / "run").stat().st_mode) == 0o755


def test_a_layer_that_is_gone_is_no_fault_of_the_function(store: Path) -> None:
    """Nothing half merged is left."""
    one = layer(store, a="1")

    with pytest.raises(ServiceError, match=r"^The layers cannot be merged: .*/gone"):
        merge([one, store / "gone"], store)

    assert [one] == list(store.iterdir())
