"""Tests of the platform. Nothing of the machine's own settings reaches them, and nothing of theirs reaches it."""

import os

os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ.pop("DAGSTER_HOME", None)
for name in [n for n in os.environ if n.startswith("BAAS_")]:
    del os.environ[name]
