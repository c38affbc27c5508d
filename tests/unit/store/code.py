"""Code for tests of packages: directories, zips and layers."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from miniλ.errors import InvalidParameterValue
from miniλ.store.packages import publish

APP = b"def handler(event, context):\n    return event\n"


def zipped(tmp_path: Path, contents: dict[str, bytes], name: str = "code.zip") -> Path:
    """Return a zip file with these contents."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, content in contents.items():
            archive.writestr(inner, content)
    return path


def tree(path: Path | str) -> list[str]:
    """Return the relative paths of everything below, sorted."""
    return sorted(str(each.relative_to(path)) for each in Path(path).rglob("*"))


def refused(code: Path | str, store: Path, match: str | None = None) -> None:
    """See that the code is refused, with this message, and nothing of it is left."""
    outside = tree(store.parent)

    with pytest.raises(InvalidParameterValue, match=match):
        publish(code, store)

    assert list(store.iterdir()) == []
    assert outside == tree(store.parent)


def layer(store: Path, **contents: str) -> Path:
    """Return a published package: of text, of links (with "->"), of directories ("/")."""
    source = store.parent / "layer"
    source.mkdir()
    for name, content in contents.items():
        path = source / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("->"):
            path.symlink_to(content[2:])
        elif content == "/":
            path.mkdir()
        else:
            path.write_text(content)
    package = Path(publish(source, store).path)
    shutil.rmtree(source)
    return package


def contents(path: Path) -> dict[str, str]:
    """Return a tree as `layer` takes it."""
    shown = {}
    for name in tree(path):
        place = path / name
        key = name.replace("/", "__")
        if place.is_symlink():
            shown[key] = f"->{place.readlink()}"
        elif not place.is_dir():
            shown[key] = place.read_text()
        elif not list(place.iterdir()):
            shown[key] = "/"
    return shown


def linked(tmp_path: Path, name: str, text: str) -> Path:
    """Return a zip file that holds one link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "linked.zip", "w") as archive:
        archive.writestr(info, text)
    return tmp_path / "linked.zip"
