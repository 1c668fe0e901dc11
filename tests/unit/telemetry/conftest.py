from pathlib import Path

import pytest
from landing_tools import Intake


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path)
