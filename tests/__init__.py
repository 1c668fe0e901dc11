"""Tests of the platform. Nothing of the machine's own settings reaches them, and nothing of theirs reaches it."""

import os
import shutil
import tempfile
from pathlib import Path

os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.pop("DAGSTER_HOME", None)
for name in [n for n in os.environ if n.startswith("BAAS_")]:
    del os.environ[name]

# Dagster's event log commits hundreds of times a run: homes in memory, where there is enough of it, spare the disk
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
    os.environ["TMPDIR"] = str(_MEMORY)
    tempfile.tempdir = None
