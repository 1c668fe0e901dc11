"""The ledger of outcomes: whoever writes it, in whatever file, it says the same; a bad line spoils nothing else."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from baas_dagster import cli, durable
from baas_dagster.anomaly.codes import CODES
from baas_dagster.anomaly.outcomes import OUTCOME_SCHEMA, Finding
from baas_dagster.cli import app
from baas_dagster.outcomes import BadOutcome, Ledger, Outcome, add, outcome_of, read

HEADER = "device_no,inspected_on,finding,code,cell_no,note\n"
CAR = "01290000003"
LINE = f"{CAR},2024-03-05,replaced,CELL_OUTLIER,81,module 6 changed"
FOUND = Outcome(CAR, date(2024, 3, 5), Finding.REPLACED, "CELL_OUTLIER", 81, "module 6 changed")


def ledger(folder: Path, content: str | bytes, name: str = "a.csv") -> Ledger:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read(folder)


def ids(found: Ledger) -> list[str]:
    return found.outcomes["outcome_id"].to_list()


def test_a_home_without_outcomes_has_an_empty_ledger(tmp_path: Path) -> None:
    found = read(tmp_path / "outcomes")
    assert found.outcomes.is_empty()
    assert found.rejected.is_empty()
    assert found.fingerprints().by_device == {}


def test_a_line_is_read_with_its_place(tmp_path: Path) -> None:
    found = ledger(tmp_path, f"{HEADER}\n{LINE}\n{CAR},2024-03-06,no_fault,,,\n")
    assert found.rejected.is_empty()
    assert found.outcomes.drop("outcome_id").rows() == [
        (CAR, date(2024, 3, 5), "replaced", "CELL_OUTLIER", 81, "module 6 changed", "a.csv", 3),
        (CAR, date(2024, 3, 6), "no_fault", None, None, None, "a.csv", 4),
    ]
    assert ids(found)[0] == FOUND.outcome_id


@pytest.mark.parametrize(
    "content",
    [
        f"\ufeff{HEADER}{LINE}\r\n",
        HEADER.replace(",", ";") + LINE.replace(",", ";"),
        "sep=;\n" + HEADER.replace(",", ";") + LINE.replace(",", ";") + ";;;\n;;;;;\n",
        (HEADER + LINE).replace(",", "\t").encode("utf-16"),
        f"Device,Date,Finding,Code,Cell,Note,mechanic\n{LINE},Kim\n",
        "finding,note,cell_no,code,inspected_on,device_no\n"
        f'Replaced,"module 6\nchanged",81,cell_outlier,2024.3.5,{CAR}',
        f'{HEADER}"=""{CAR}""",2024/3/5,교체,CELL_OUTLIER,81,module 6  changed\n',
        f"{HEADER}{LINE}\n{HEADER}{LINE}\n",
    ],
    ids=["bom", "semicolons", "spreadsheet", "utf-16", "other columns", "other order", "kept as text", "joined files"],
)
def test_what_spreadsheets_and_other_systems_write_says_the_same(tmp_path: Path, content: str | bytes) -> None:
    found = ledger(tmp_path, content)
    assert found.rejected.is_empty()
    assert ids(found) == [FOUND.outcome_id]


def test_each_line_has_its_own_encoding(tmp_path: Path) -> None:
    notes = [f"{CAR},2024-03-05,수리,,,셀 교체".encode("cp949"), f"{CAR},2024-03-06,이상 없음,,,정상".encode()]
    found = ledger(tmp_path, HEADER.encode() + b"\n".join(notes))
    assert found.outcomes["note"].to_list() == ["셀 교체", "정상"]
    assert found.outcomes["finding"].to_list() == ["repaired", "no_fault"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1290000003,2024-03-05,replaced,,,", "device_no '1290000003' is not 11 digits; a spreadsheet has dropped"),
        ("١٢٣٤٥٦٧٨٩٠١,2024-03-05,replaced,,,", "is not 11 digits"),
        (f"{CAR},2024-02-30,replaced,,,", "inspected_on '2024-02-30' is no date"),
        (f"{CAR},05.03.2024,replaced,,,", "is no date YYYY-MM-DD"),
        (f"{CAR},0202-03-05,replaced,,,", "is before 2015-01"),
        (f"{CAR},2024-03-05,,,,", "finding '' is none of confirmed, replaced"),
        (f"{CAR},2024-03-05,looks odd,,,", "put other words into note"),
        (f"{CAR},2024-03-05,replaced,CELL_BROKEN,,", "code 'CELL_BROKEN' is none of"),
        (f"{CAR},2024-03-05,replaced,CELL_OUTLIER,0,", "cell_no '0' is no number"),
        (f"{CAR},2024-03-05,replaced,CELL_OUTLIER,eleven,", "cell_no 'eleven' is no number"),
        (f"{CAR},2024-03-05", "finding '' is none of"),
        (f'{CAR},2024-03-05,replaced,,,"never closed', "a quotation mark is opened and not closed"),
        (f'{CAR},2024-03-05,replaced,,,"closed" early', "closed too early"),
        ("cell 81 was bad", "device_no 'cell 81 was bad' is not 11 digits"),
    ],
)
def test_a_bad_line_is_kept_with_its_number_and_the_rest_goes_on(tmp_path: Path, line: str, reason: str) -> None:
    good = [f"{CAR},2024-03-0{day},no_fault,,," for day in (1, 2, 3)]
    found = ledger(tmp_path, HEADER + "\n".join([good[0], line, *good[1:]]))
    assert found.outcomes["inspected_on"].to_list() == [date(2024, 3, day) for day in (1, 2, 3)]
    name, number, why, text = found.rejected.row(0)
    assert found.rejected.height == 1
    assert (name, number, text) == ("a.csv", 3, line)
    assert reason in why


def test_a_field_too_many_is_refused_unless_it_is_a_note(tmp_path: Path) -> None:
    found = ledger(tmp_path, f"{HEADER}{CAR},2024-03-05,replaced,,,cell 81, then 82\n")
    assert found.outcomes["note"].to_list() == ["cell 81, then 82"]
    refused = ledger(tmp_path / "b", f"device_no,inspected_on,finding\n{CAR},2024-03-05,replaced,what\n")
    assert refused.rejected["reason"].to_list() == ["4 fields, the header has 3"]


def test_a_file_without_header_is_refused_as_a_whole(tmp_path: Path) -> None:
    found = ledger(tmp_path, f"{LINE}\n{LINE}\n")
    assert found.outcomes.is_empty()
    assert found.rejected.row(0)[1:3] == (
        1,
        "the header has no device_no, inspected_on, finding; the rest of the file is not read",
    )


def test_files_that_are_not_finished_or_empty_are_none_of_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in (".hidden.csv", "notes.txt", "a.csv.part"):
        (tmp_path / name).write_text("whatever", encoding="utf-8")
    found = ledger(tmp_path, "\n\n", "empty.csv")
    assert found.outcomes.is_empty()
    assert found.rejected.is_empty()


words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
outcomes = st.builds(
    lambda device, day, finding, code, cell, note: outcome_of(
        {"device_no": device, "inspected_on": str(day), "finding": finding, "code": code, "cell_no": cell, "note": note}
    ),
    st.sampled_from([CAR, "01290000001", "00000000000"]),
    st.dates(date(2015, 1, 1), date(2030, 12, 31)),
    st.sampled_from([str(finding) for finding in Finding]),
    st.none() | st.sampled_from(sorted(CODES)),
    st.none() | st.integers(1, 192).map(str),
    words,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), said=st.lists(outcomes, min_size=1, max_size=8))
def test_order_files_and_repetitions_decide_nothing(
    data: st.DataObject, said: list[Outcome], tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, again = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("again")
    for outcome in said:
        add(first, outcome)
    lines = data.draw(st.permutations([*said, *said[:3]]))
    for number, outcome in enumerate(lines):
        path = again / f"{data.draw(st.integers(0, 2))}.csv"
        text = path.read_text("utf-8") if path.exists() else HEADER
        cells = [f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in outcome.cells]
        path.write_text(text + ",".join(cells) + "\n" * (1 + number % 2), encoding="utf-8")
    one, other = read(first), read(again)
    assert one.rejected.is_empty()
    assert other.rejected.is_empty()
    assert set(ids(one)) == {outcome.outcome_id for outcome in said}
    assert_frame_equal(one.outcomes.select(*OUTCOME_SCHEMA), other.outcomes.select(*OUTCOME_SCHEMA))
    assert one.fingerprints() == other.fingerprints()


def test_a_fingerprint_moves_for_the_car_that_is_told_of_and_for_a_refused_line(tmp_path: Path) -> None:
    add(tmp_path, FOUND)
    before = read(tmp_path).fingerprints()
    add(tmp_path, Outcome("01290000001", date(2024, 3, 5), Finding.NO_FAULT))
    after = read(tmp_path).fingerprints()
    assert after.by_device[CAR] == before.by_device[CAR]
    assert "01290000001" in after.by_device
    assert after.everything != before.everything
    refused = ledger(tmp_path, f"{HEADER}nonsense\n").fingerprints()
    assert refused.by_device == after.by_device
    assert refused.everything != after.everything


def test_adding_the_same_again_writes_nothing(tmp_path: Path) -> None:
    path = add(tmp_path, FOUND)
    assert path is not None
    assert path.name == "outcomes-2024.csv"
    content = path.read_bytes()
    assert add(tmp_path, FOUND) is None
    assert path.read_bytes() == content == (HEADER + LINE + "\n").encode()


@pytest.mark.parametrize(
    "before", [f"{HEADER}{CAR},2024-01-01,no_fault,,,", f'{HEADER}{CAR},2024-01-01,no_fault,,,"torn']
)
def test_a_line_that_was_left_unfinished_swallows_no_other(tmp_path: Path, before: str) -> None:
    ledger(tmp_path, before, "outcomes-2024.csv")
    add(tmp_path, FOUND)
    assert FOUND.outcome_id in ids(read(tmp_path))
    assert (tmp_path / "outcomes-2024.csv").read_text("utf-8").startswith(before)


def test_a_file_that_somebody_has_changed_is_left_alone(tmp_path: Path) -> None:
    theirs = HEADER.replace(",", ";") + f"{CAR};2024-01-01;no_fault;;;\n"
    ledger(tmp_path, theirs, "outcomes-2024.csv")
    path = add(tmp_path, FOUND)
    assert path is not None
    assert path.name == "outcomes-2024-2.csv"
    assert (tmp_path / "outcomes-2024.csv").read_text("utf-8") == theirs
    assert read(tmp_path).outcomes.height == 2


def test_a_crash_while_adding_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add(tmp_path, FOUND)
    assert path is not None
    before = path.read_bytes()

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        add(tmp_path, Outcome(CAR, date(2024, 3, 6), Finding.NO_FAULT))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_who_adds_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    said = [Outcome(CAR, date(2024, 3, day), Finding.NO_FAULT) for day in range(1, 17)]
    threads = [threading.Thread(target=add, args=(tmp_path, outcome)) for outcome in said]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ids(read(tmp_path))) == {outcome.outcome_id for outcome in said}


def test_an_outcome_says_which_part_of_it_is_wrong() -> None:
    with pytest.raises(BadOutcome) as problem:
        outcome_of({"device_no": CAR, "inspected_on": "2024-03-05", "finding": "replaced", "cell_no": "-1"})
    assert problem.value.column == "cell_no"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BAAS_HOME", str(tmp_path))
    monkeypatch.setattr(cli.console, "_width", 200)  # wide enough that no cell is folded
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["outcome", *arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_command_adds_and_lists(home: Path) -> None:
    code, text = run("add", "--device", CAR, "--date", "2024-03-05", "--finding", "replaced",
                     "--code", "CELL_OUTLIER", "--cell", "81", "--note", "module 6 changed")  # fmt: skip
    assert code == 0
    assert "outcomes-2024.csv" in text
    assert ids(read(home / "outcomes")) == [FOUND.outcome_id]
    assert run("add", "--device", CAR, "--date", "2024-03-05", "--finding", "no_fault")[0] == 0
    code, text = run("list")
    assert code == 0
    assert text.count(CAR) == 2
    assert "outcomes-2024.csv:2" in text
    assert CAR not in run("list", "--device", "01290000001")[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--device": "1290000003"}, "Invalid value for --device: device_no '1290000003' is not 11 digits"),
        ({"--date": "yesterday"}, "Invalid value for --date: inspected_on 'yesterday' is no date"),
        ({"--date": "2999-01-01"}, "is in the future"),
        ({"--finding": "odd"}, "Invalid value for --finding: finding 'odd' is none of confirmed"),
        ({"--code": "X"}, "Invalid value for --code"),
        ({"--cell": "0"}, "Invalid value for --cell"),
    ],
)
def test_a_wrong_argument_is_a_usage_error_and_writes_nothing(
    home: Path, changed: dict[str, str], message: str
) -> None:
    given_ = {"--device": CAR, "--date": "2024-03-05", "--finding": "replaced"} | changed
    code, text = run("add", *(part for pair in given_.items() for part in pair))
    assert code == 2
    assert message in text.replace("│ ", "").replace(" │", "")
    assert not (home / "outcomes").exists()


def test_listing_names_bad_lines_and_says_so_by_its_exit_code(home: Path) -> None:
    ledger(home / "outcomes", f"{HEADER}{LINE}\n1290,2024-03-05,replaced,,,[/red]\n")
    code, text = run("list")
    assert code == 1
    assert "a.csv line 3: device_no '1290' is not 11 digits: 1290,2024-03-05,replaced,,,[/red]" in text
