"""What is on the disk when a file gets its name: seen through the calls that wait for the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from baas_dagster import durable
from baas_dagster.resources import Lake


class Disk:
    """Which files and folders were waited for, and which names were there at that moment."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.waits: list[tuple[str, set[str]]] = []
        waits_for_the_disk = os.fsync

        def fsync(handle: int) -> None:
            path = Path(f"/proc/self/fd/{handle}").readlink()
            names = {p.relative_to(root).as_posix() for p in root.rglob("*")}
            self.waits.append((path.relative_to(root.parent).as_posix(), names))
            waits_for_the_disk(handle)

        monkeypatch.setattr(durable.os, "fsync", fsync)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the name behind a handle cannot be told here")
    root = tmp_path / "lake"
    root.mkdir()
    return Disk(root, monkeypatch)


def test_a_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(disk: Disk) -> None:
    Lake.write(disk.root / "raw" / "a" / "part.parquet", pa.table({"x": [1, 2]}))
    final = "raw/a/part.parquet"
    synced = [(path, final in names) for path, names in disk.waits]
    # the new folders first, each by the one it lies in; then the content; then the name
    assert [path for path, _ in synced[:2]] == ["lake", "lake/raw"]
    assert ".tmp-" in synced[2][0]
    assert [named for _, named in synced] == [False, False, False, True]
    assert synced[3][0] == "lake/raw/a"


def test_a_second_name_of_a_file_is_on_the_disk_too(disk: Disk) -> None:
    source = disk.root / "slice.parquet"
    Lake.write(source, pa.table({"x": [1]}))
    disk.waits.clear()
    Lake.link(source, disk.root / "raw" / "part.parquet")
    path, names = disk.waits[-1]
    assert path == "lake/raw"
    assert "raw/part.parquet" in names
    assert not [name for name in names if ".tmp-" in name]
