"""Partition keys, ranges and rectangles."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from baas_dagster.cli import app
from baas_dagster.partitions import DEVICES as ALL_DEVICES
from baas_dagster.partitions import MONTHS as ALL_MONTHS
from baas_dagster.partitions import PARTITIONS, PartitionId, is_device_no, month_span, rectangles, runs_of
from baas_dagster.settings import FIRST_MONTH, Settings

DEVICES = [f"0129000{n:04d}" for n in range(1, 7)]
MONTHS = ["2023-11", "2023-12", "2024-01", "2024-02"]


def test_a_key_is_device_then_month() -> None:
    key = PartitionId("01290000001", "2023-01").key
    assert key == "01290000001|2023-01"
    assert PartitionId.parse(key) == PartitionId("01290000001", "2023-01")
    assert PARTITIONS.get_partition_key_from_str(key).keys_by_dimension == {
        "device_no": "01290000001",
        "measured_month": "2023-01",
    }


@pytest.mark.parametrize("key", ["1290000001|2023-01", "01290000001|2023-13", "01290000001", "2023-01|01290000001", ""])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not a partition key"):
        PartitionId.parse(key)


@pytest.mark.parametrize("text", ["1290000001", "012900000012", "0129000000a", " 1290000001"])
def test_a_device_number_has_eleven_digits(text: str) -> None:
    assert not is_device_no(text)


def test_a_span_of_months_is_one_month_or_two() -> None:
    assert month_span("2023-01") == ("2023-01", "2023-01")
    assert month_span("2023-01..2023-03") == ("2023-01", "2023-03")
    for wrong in ("2023-1", "2023-03..2023-01", "2023-00", "january"):
        with pytest.raises(ValueError, match="not a month"):
            month_span(wrong)


def test_the_first_month_of_the_settings_is_the_first_that_dagster_knows() -> None:
    assert ALL_MONTHS.get_first_partition_key() == FIRST_MONTH == Settings().first_month
    assert Settings(first_month="2019-06").first_month == "2019-06"


def test_a_first_month_without_partitions_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BAAS_HOME", str(tmp_path))
    monkeypatch.setenv("BAAS_FIRST_MONTH", "2014-12")
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 2
    assert "BAAS_FIRST_MONTH" in done.stderr
    assert "no partitions before 2015-01" in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_stretches_follow_the_order_of_registration_not_the_alphabet() -> None:
    registered = ["1", "2", "9", "5", "0"]
    assert runs_of(registered, ["1", "2", "5"]) == [("1", "2"), ("5", "5")]
    assert runs_of(registered, ["9", "5", "0"]) == [("9", "0")]
    with pytest.raises(KeyError):
        runs_of(registered, ["7"])


@given(
    wanted=st.sets(st.tuples(st.sampled_from(DEVICES), st.sampled_from(MONTHS)), min_size=1),
    registered=st.permutations(DEVICES),
    max_keys=st.integers(1, 12),
    weights=st.lists(st.integers(0, 100), min_size=24, max_size=24),
)
def test_rectangles_cover_exactly_what_was_asked(
    wanted: set[tuple[str, str]], registered: list[str], max_keys: int, weights: list[int]
) -> None:
    parts = [PartitionId(d, m) for d, m in wanted]
    weight = dict(zip((PartitionId(d, m) for d in DEVICES for m in MONTHS), weights, strict=True))
    blocks = rectangles(parts, registered, weight, max_keys, 120)
    covered = [part for block in blocks for part in block]
    assert sorted(covered) == sorted(parts), "every partition once, no other"
    for block in blocks:
        assert len(block) <= max_keys
        # Dagster expands a range as the product of two stretches: the block must be that product
        devices = [d for d in registered if d in {p.device_no for p in block}]
        months = [m for m in MONTHS if m in {p.measured_month for p in block}]
        first, last = registered.index(devices[0]), registered.index(devices[-1])
        assert registered[first : last + 1] == devices
        assert MONTHS[MONTHS.index(months[0]) : MONTHS.index(months[-1]) + 1] == months
        assert {(p.device_no, p.measured_month) for p in block} == {(d, m) for d in devices for m in months}
        assert (block[0].device_no, block[0].measured_month) == (devices[0], months[0])
        assert (block[-1].device_no, block[-1].measured_month) == (devices[-1], months[-1])
        if len(block) > 1:
            assert sum(weight[p] for p in block) <= 120 or len(months) == 1 or len(devices) == 1


def test_a_range_of_devices_follows_their_registration_and_an_unknown_one_is_refused() -> None:
    one, two, three = "01290000003", "01290000001", "01290000002"
    with dg.DagsterInstance.ephemeral() as instance, dg.partition_loading_context(dynamic_partitions_store=instance):
        instance.add_dynamic_partitions(str(ALL_DEVICES.name), [one, two, three])
        assert list(ALL_DEVICES.get_partition_keys_in_range(dg.PartitionKeyRange(two, three))) == [two, three]
        assert list(ALL_DEVICES.get_partition_keys_in_range(dg.PartitionKeyRange(one, one))) == [one]
        with pytest.raises(dg.DagsterInvalidInvocationError, match="01290009999"):
            ALL_DEVICES.get_partition_keys_in_range(dg.PartitionKeyRange(one, "01290009999"))
