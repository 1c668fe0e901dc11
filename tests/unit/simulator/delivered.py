"""Reads simulated deliveries back in the plainest way, for tests: data members and their lines."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import polars as pl


def member_bytes(landing: Path, path: str, member: str) -> bytes:
    """Content of a data file: of a bare file, a member of a ZIP, or of a ZIP inside a ZIP."""
    data = (landing / path).read_bytes()
    for part in member.split("/") if member and not member.startswith("__MACOSX") else ([member] if member else []):
        data = zipfile.ZipFile(io.BytesIO(data)).read(part)
    name = member or path
    return gzip.decompress(data) if name.endswith(".gz") else data


def rows_of(data: bytes, encoding: str = "utf-8-sig") -> list[dict[str, str]]:
    """Well-formed rows of a psql dump as texts by header, in the order of the file."""
    lines = data.decode(encoding).splitlines()
    header = [name.strip() for name in lines[0].split("|")]
    rows = [[field.strip() for field in line.split("|")] for line in lines[2:]]
    return [
        dict(zip(header, row, strict=True))
        for row, line in zip(rows, lines[2:], strict=True)
        if len(row) == len(header) and row != header and not line.startswith(("-", "("))
    ]


def largest(values: pl.Series) -> float:
    """Largest of numbers."""
    return float(values.to_numpy().max())


def smallest(values: pl.Series) -> float:
    """Smallest of numbers."""
    return float(values.to_numpy().min())
