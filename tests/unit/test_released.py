"""Released versions are named by what they say, and at most one is active in a slot."""

from __future__ import annotations

from pathlib import Path

from baas_dagster.released import Releases, Version


def version(volt: float, pack_type: str | None = None) -> Version:
    return Version("ocv", "NMC622", pack_type, {"ocv_v": [3.0, volt]}, {"cars": 3}, {"rms_mv": 2.0})


def test_the_name_of_a_version_is_what_it_says(tmp_path: Path) -> None:
    same = Version("ocv", "NMC622", None, {"ocv_v": [3.0, 4.1]}, {"cars": 9}, {})
    assert version(4.1).version_id == same.version_id
    assert version(4.1).version_id != version(4.2).version_id
    assert version(4.1).version_id != version(4.1, "X").version_id


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.add([version(4.1), version(4.2)])
    releases.add([version(4.1)])
    assert {v.version_id for v in releases.versions()} == {version(4.1).version_id, version(4.2).version_id}
    assert (
        releases.versions()[0].content == version(4.1).content or releases.versions()[1].content == version(4.1).content
    )
    assert releases.active() == {}


def test_activating_replaces_the_version_of_the_slot_alone(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.add([version(4.1), version(4.2), version(4.1, "X")])
    assert releases.activate([version(4.1), version(4.1, "X")]) == ["ocv/NMC622/*", "ocv/NMC622/X"]
    assert releases.activate([version(4.2)]) == ["ocv/NMC622/*"]
    assert releases.activate([version(4.2)]) == []
    assert releases.active()["ocv/NMC622/X"] == version(4.1, "X").version_id


def test_a_pack_takes_its_types_version_before_its_chemistrys(tmp_path: Path) -> None:
    releases = Releases(tmp_path)
    releases.add([version(4.1), version(4.2, "X")])
    releases.activate([version(4.1), version(4.2, "X")])
    assert releases.for_pack("ocv", "NMC622", "X") == version(4.2, "X")
    assert releases.for_pack("ocv", "NMC622", "Y") == version(4.1)
    assert releases.for_pack("ocv", "LFP", "X") is None
    assert releases.for_pack("ocv", None, None) is None
