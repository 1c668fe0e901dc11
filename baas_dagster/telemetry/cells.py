"""Lists of cell voltages and module temperatures: text or floats -> int16 with per-row figures.

Belongs here: cutting a list into numbers, the fixed-point types of the lake (mV, 0.1 degC), what in a list is *no
value* (DOMAIN 3, kind 2: listed sentinels and blocks of placeholders), and the figures per row over what is left.
Does not belong here: which values are suspect (DOMAIN 3, kind 3). A cell at 1.2 V or 4.9 V is a measurement and stays.

A list column of ``n`` rows is a ``NumberLists``: ``offsets`` (n + 1) into flat ``values`` (int16, scaled), and
``states`` (uint8 per value, None where every value is PRESENT). Rows are independent of each other: any cut of the rows
gives the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "CELL_FIGURES",
    "CELL_SCALE",
    "NULL_TOKENS",
    "NUMBER_PATTERN",
    "TEMP_FIGURES",
    "TEMP_SCALE",
    "NumberLists",
    "PlaceholderRule",
    "cell_columns",
    "first_non_empty",
    "lists_from_arrow",
    "lists_from_matrix",
    "lists_from_text",
    "temp_columns",
]

CELL_SCALE: Final = 1000
"""Lake values per delivered volt: mV."""

TEMP_SCALE: Final = 10
"""Lake values per delivered degC: 0.1 degC."""

CELL_SENTINEL_MV: Final = 66_535
"""DOMAIN 3: 66.535 V is 'no value' (1,537 of them in car 01290000001)."""

TEMP_SENTINELS_DC: Final = (-400, 2150, 4710)
"""DOMAIN 3: an absent sensor reads -40, 215 or 471 degC. 0 stays: one row cannot know that a sensor never moves."""

NULL_TOKENS: Final = frozenset({"", "null", "nan", "none", "\\n", "-"})
"""Spellings of 'no value', lower case and without blanks."""

NUMBER_PATTERN: Final = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""What counts as a number. No thousands separator, no decimal comma, no infinity: they are not guessed."""

_EDGE = " \t\r\n[](){}\"'"
_WORD = 8  # bytes of a token that are looked at as one 64-bit integer
_TOKENS_PER_STEP = 1 << 16  # keeps the working set of the gather in the processor's cache

PRESENT, ABSENT, SENTINEL, UNFIT, BAD = range(5)

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CELL_FIGURES: Final = (
    "cell_mv",
    "cell_n",
    "cell_min_mv",
    "cell_max_mv",
    "cell_mean_mv",
    "cell_sum_mv",
    "cell_sentinel_n",
    "cell_placeholder_n",
    "cell_unfit_n",
)
TEMP_FIGURES: Final = ("mod_temp_dc", "temp_n", "temp_min_c", "temp_max_c", "temp_mean_c", "temp_sentinel_n")


@dataclass(frozen=True)
class PlaceholderRule:
    """When a block of cells that was polled together holds no measurement (DOMAIN 3)."""

    block: int = 32
    """Cells polled at once [seen]."""
    least_equal: int = 28
    """Cells of a block that must read exactly the placeholder: real cells scatter by more than that."""
    always_mv: tuple[int, ...] = (5100, 0)
    """Values that no healthy group of 28 cells shows."""
    when_contradicted_mv: int = 4000
    """A placeholder that a healthy pack can show as well: it takes a contradiction."""
    neighbour_mv: int = 60
    """Distance from the median of the row's other cells that contradicts 4.00 V: three steps of 0.02 V."""
    pack_share: float = 0.02
    pack_v: float = 8.0
    """Distance of the cells' sum from pack_volt that contradicts: the larger of the two (DOMAIN 3, stale rows)."""
    pack_scales: tuple[float, ...] = (1.0, 0.1)
    """Exports give pack_volt in V or in 0.1 V; a row contradicts only if it does at either scale."""


@dataclass(frozen=True)
class NumberLists:
    """``n`` lists of scaled numbers. ``bad``: row -> the first token in it that is not a number."""

    offsets: I64
    values: I16
    states: U8 | None
    bad: dict[int, str]

    @property
    def lengths(self) -> I64:
        """Values per row, absent ones in the middle included."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int | None:
        """Length shared by all rows, or None."""
        lengths = self.lengths
        return int(lengths[0]) if len(lengths) and lengths[0] > 0 and (lengths == lengths[0]).all() else None


# -- text -> numbers ------------------------------------------------------------------------------------------------


def lists_from_text(texts: Any, scale: int, sentinel: int | None = None) -> NumberLists:
    """Cut an Arrow string array of comma-separated lists; blanks, brackets and quotes around values do not matter.

    Absent values at the end of a list are cut off. Distinct spellings are few (a cell has a few hundred steps), so
    every token becomes a code and only the distinct ones are parsed.
    """
    if texts.null_count == len(texts):
        return _empty(len(texts))
    cut = _cut_words(texts) or _cut_words(pc.ascii_trim_whitespace(texts)) or _cut_strings(texts)
    codes, spellings, offsets = cut
    values, states = _decode(spellings, scale, sentinel)
    missing = np.asarray(texts.is_null()) if texts.null_count else None
    return _lists(codes, spellings, values, states, offsets, missing)


def _lists(codes: Any, spellings: Any, values: I16, states: U8, offsets: I64, missing: Mask | None) -> NumberLists:
    flat = values[codes]
    if missing is None and not states.any():
        return NumberLists(offsets, flat, None, {})
    flat_states = states[codes]
    bad: dict[int, str] = {}
    if (states == BAD).any():
        at = np.flatnonzero(flat_states == BAD)
        rows = np.searchsorted(offsets, at, side="right") - 1
        first, index = np.unique(rows, return_index=True)
        bad = {int(r): str(spellings[int(codes[at[i]])]) for r, i in zip(first, index, strict=True)}
    return _without_tail(NumberLists(offsets, flat, flat_states, bad))


def _cut_words(texts: Any) -> tuple[Any, Any, I64] | None:
    """Codes of the tokens, their spellings, token offsets per row; None where a token is longer than a machine word."""
    if pa.types.is_large_string(texts.type):
        texts = texts.cast(pa.string())
    ends = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    begin, end = int(ends[0]), int(ends[-1])
    text = np.zeros(end - begin + _WORD, np.uint8)
    if end > begin:
        text[: end - begin] = np.frombuffer(texts.buffers()[2], np.uint8)[begin:end]
    ends = ends[1:] - begin
    commas = np.flatnonzero(text == ord(",")).astype(np.int32)
    commas_before = np.searchsorted(commas, ends)
    row_ends = commas_before + np.arange(len(ends))
    stops = np.insert(commas, commas_before, ends)
    starts = np.empty_like(stops)
    starts[0] = 0
    starts[1:] = stops[:-1] + 1
    starts[row_ends[:-1] + 1] -= 1  # a row ends without a separator
    lengths = stops - starts
    if lengths.max(initial=0) > _WORD:
        return None
    at = np.ndarray((end - begin + 1,), "<u8", buffer=text.data, strides=(1,))
    kept = np.array([(1 << (8 * k)) - 1 for k in range(_WORD + 1)], np.uint64)
    words = np.empty(len(starts), np.uint64)
    for step in range(0, len(starts), _TOKENS_PER_STEP):
        part = slice(step, step + _TOKENS_PER_STEP)
        words[part] = at[starts[part]] & kept[lengths[part]]
    coded = pa.array(words).dictionary_encode()
    spelled = np.asarray(coded.dictionary).astype("<u8").view("S8")
    spellings = pa.array([s.decode("utf-8", "replace") for s in spelled.tolist()], pa.string())
    offsets = np.zeros(len(ends) + 1, np.int64)
    offsets[1:] = row_ends + 1
    return np.asarray(coded.indices), spellings, offsets


def _cut_strings(texts: Any) -> tuple[Any, Any, I64]:
    """The same as ``_cut_words`` for tokens of any length, slower."""
    cut = pc.split_pattern(pc.fill_null(texts, ""), ",")
    coded = cut.flatten().dictionary_encode()
    offsets = np.asarray(cut.offsets).astype(np.int64)
    return np.asarray(coded.indices), coded.dictionary, offsets - offsets[0]


def _decode(spellings: Any, scale: int, sentinel: int | None) -> tuple[I16, U8]:
    """Value and state of each distinct spelling."""
    trimmed = pc.utf8_trim(spellings, characters=_EDGE)
    absent = np.asarray(pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(sorted(NULL_TOKENS))))
    good = np.asarray(pc.match_substring_regex(trimmed, NUMBER_PATTERN))
    digits = pc.utf8_ltrim(pc.if_else(pa.array(good), trimmed, "0"), characters="+")
    values, states = _scaled(np.asarray(digits.cast(pa.float64())), scale, sentinel)
    states[~good] = BAD
    states[absent] = ABSENT
    return values, states


def _scaled(numbers: F64, scale: int, sentinel: int | None) -> tuple[I16, U8]:
    """Round to fixed point (3.92 V -> 3920 mV exactly); what int16 cannot hold is 0 with a state that says so."""
    scaled = np.rint(numbers * scale)
    fits = (scaled >= -32_768) & (scaled <= 32_767)
    states = np.where(fits, PRESENT, UNFIT).astype(np.uint8)
    if sentinel is not None:
        states[(scaled == sentinel) & ~fits] = SENTINEL
    states[np.isnan(numbers)] = ABSENT
    return np.where(fits, scaled, 0.0).astype(np.int16), states


# -- numbers -> lists -----------------------------------------------------------------------------------------------


def lists_from_arrow(lists: Any, scale: int, sentinel: int | None = None) -> NumberLists:
    """The same from an Arrow list array of numbers or of text."""
    if pa.types.is_fixed_size_list(lists.type) or pa.types.is_large_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    flat = lists.flatten()  # leaves out what lies under NULL rows
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        coded = pc.fill_null(flat.cast(pa.string()), "").dictionary_encode()
        values, states = _decode(coded.dictionary, scale, sentinel)
        return _lists(np.asarray(coded.indices), coded.dictionary, values, states, offsets, np.zeros(0, np.bool_))
    numbers = flat.cast(pa.float64()).to_numpy(zero_copy_only=False)
    values, states = _scaled(numbers, scale, sentinel)
    return _without_tail(NumberLists(offsets, values, states if states.any() else None, {}))


def lists_from_matrix(numbers: F64, scale: int, sentinel: int | None = None) -> NumberLists:
    """The same from numbered columns: ``numbers`` is (rows, positions), NaN where a position is absent."""
    rows, width = numbers.shape
    values, states = _scaled(numbers.reshape(-1), scale, sentinel)
    lists = NumberLists(np.arange(rows + 1, dtype=np.int64) * width, values, states if states.any() else None, {})
    return _without_tail(lists)


def first_non_empty(first: NumberLists, second: NumberLists) -> NumberLists:
    """Row by row the first list, or the second where the first has no value."""
    use_second = first.lengths == 0
    if not use_second.any():
        return first
    starts = np.where(use_second, second.offsets[:-1] + len(first.values), first.offsets[:-1])
    lengths = np.where(use_second, second.lengths, first.lengths)
    values = np.concatenate((first.values, second.values))
    states = None
    if first.states is not None or second.states is not None:
        states = np.concatenate([_states(x) for x in (first, second)])
    return _picked(starts, lengths, values, states, {**second.bad, **first.bad})


def _empty(rows: int) -> NumberLists:
    return NumberLists(np.zeros(rows + 1, np.int64), np.zeros(0, np.int16), None, {})


def _states(lists: NumberLists) -> U8:
    return np.zeros(len(lists.values), np.uint8) if lists.states is None else lists.states


def _picked(starts: I64, lengths: I64, values: I16, states: U8 | None, bad: dict[int, str]) -> NumberLists:
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    index = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    kept = None if states is None else states[index]
    return NumberLists(offsets, values[index], kept if kept is not None and kept.any() else None, bad)


def _without_tail(lists: NumberLists) -> NumberLists:
    """Cut absent values off the end of each list: exports pad short packs to 192."""
    if lists.states is None or not (lists.states == ABSENT).any():
        return lists
    position = np.where(lists.states == ABSENT, 0, np.arange(1, len(lists.states) + 1))
    last = _per_row(np.maximum, position, lists.offsets, None, 0)
    lengths = np.maximum(last - lists.offsets[:-1], 0)
    return _picked(lists.offsets[:-1], lengths, lists.values, lists.states, lists.bad)


# -- figures per row ------------------------------------------------------------------------------------------------


def cell_columns(lists: NumberLists, pack_volt: F64, rule: PlaceholderRule | None = None) -> dict[str, Any]:
    """Arrow columns ``CELL_FIGURES``. ``pack_volt``: (rows,) as delivered, NaN where absent.

    ``cell_mv`` keeps what was delivered (NULL where it does not fit); the figures leave out sentinels and placeholders.
    """
    placeholder = _placeholders(lists, pack_volt, rule or PlaceholderRule())
    figures = _figures(lists, placeholder)
    n, low, high, total = figures.n, figures.low, figures.high, figures.total
    none, given = n == 0, lists.lengths > 0
    zero = np.zeros(len(n), np.int64)
    sentinels = zero if lists.states is None else _count(lists.states == SENTINEL, lists)
    unfit = zero if lists.states is None else _count(lists.states == UNFIT, lists)
    placeholders = zero if placeholder is None else _count(placeholder, lists)
    mean = total / np.maximum(n, 1)
    return {
        "cell_mv": _list_array(lists),
        "cell_n": pa.array(n.astype(np.int16), mask=~given),
        "cell_min_mv": pa.array(low.astype(np.int16), mask=none),
        "cell_max_mv": pa.array(high.astype(np.int16), mask=none),
        "cell_mean_mv": pa.array(mean, mask=none),
        "cell_sum_mv": pa.array(total.astype(np.int32), mask=none),
        "cell_sentinel_n": pa.array(sentinels.astype(np.int16), mask=~given),
        "cell_placeholder_n": pa.array(placeholders.astype(np.int16), mask=~given),
        "cell_unfit_n": pa.array(unfit.astype(np.int16), mask=~given),
    }


def temp_columns(lists: NumberLists) -> dict[str, Any]:
    """Arrow columns ``TEMP_FIGURES``: list in 0.1 degC, figures in degC over sensors that do not read a sentinel."""
    sentinel = np.isin(lists.values, TEMP_SENTINELS_DC)
    if lists.states is not None:
        sentinel &= lists.states == PRESENT
    figures = _figures(lists, sentinel if sentinel.any() else None)
    none, given = figures.n == 0, lists.lengths > 0
    count = _count(sentinel, lists) if sentinel.any() else np.zeros(len(none), np.int64)
    return {
        "mod_temp_dc": _list_array(lists),
        "temp_n": pa.array(figures.n.astype(np.int16), mask=~given),
        "temp_min_c": pa.array(figures.low / TEMP_SCALE, mask=none),
        "temp_max_c": pa.array(figures.high / TEMP_SCALE, mask=none),
        "temp_mean_c": pa.array(figures.total / (np.maximum(figures.n, 1) * TEMP_SCALE), mask=none),
        "temp_sentinel_n": pa.array(count.astype(np.int16), mask=~given),
    }


@dataclass(frozen=True)
class _Figures:
    n: I64
    low: I16
    high: I16
    total: I64


def _figures(lists: NumberLists, left_out: Mask | None) -> _Figures:
    width, offsets, values = lists.width, lists.offsets, lists.values
    if lists.states is None and left_out is None:
        low = _per_row(np.minimum, values, offsets, width, 0)
        high = _per_row(np.maximum, values, offsets, width, 0)
        return _Figures(lists.lengths, low, high, _sums(values, offsets, width))
    counted = np.ones(len(values), np.bool_) if lists.states is None else lists.states == PRESENT
    if left_out is not None:
        counted &= ~left_out
    low = _per_row(np.minimum, np.where(counted, values, np.int16(32_767)), offsets, width, 0)
    high = _per_row(np.maximum, np.where(counted, values, np.int16(-32_768)), offsets, width, 0)
    total = _sums(np.where(counted, values, np.int16(0)), offsets, width)
    return _Figures(_count(counted, lists), low, high, total)


def _per_row(ufunc: Any, flat: Any, offsets: I64, width: int | None, empty: int) -> Any:
    """Reduce each row; ``empty`` for rows without values. Equal widths reduce as a matrix: several times faster."""
    if width is not None:
        return ufunc.reduce(flat.reshape(-1, width), axis=1)
    out = np.full(len(offsets) - 1, empty, flat.dtype)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        out[filled] = ufunc.reduceat(flat, offsets[filled])
    return out


def _sums(flat: Any, offsets: I64, width: int | None) -> I64:
    if width is not None:
        return np.asarray(flat.reshape(-1, width).sum(axis=1, dtype=np.int64))
    return np.asarray(_per_row(np.add, flat.astype(np.int64), offsets, None, 0))


def _count(mask: Mask, lists: NumberLists) -> I64:
    return _sums(mask, lists.offsets, lists.width)


def _list_array(lists: NumberLists) -> Any:
    mask = None if lists.states is None else lists.states != PRESENT
    values = pa.array(lists.values, mask=mask)
    empty = lists.lengths == 0
    return pa.ListArray.from_arrays(
        pa.array(lists.offsets.astype(np.int32)), values, mask=pa.array(empty) if empty.any() else None
    )


# -- placeholder blocks ---------------------------------------------------------------------------------------------


def _placeholders(lists: NumberLists, pack_volt: F64, rule: PlaceholderRule) -> Mask | None:
    """Which values are placeholders, or None where none is."""
    present = None if lists.states is None else lists.states == PRESENT
    found: Mask | None = None
    empty = np.zeros(len(lists.values), np.bool_)
    for value in rule.always_mv:
        empty |= lists.values == value
    if present is not None:
        empty &= present
    if int(np.count_nonzero(empty)) >= rule.least_equal:
        found = _in_full_blocks(empty, lists, rule)
    four = lists.values == rule.when_contradicted_mv
    if present is not None:
        four &= present
    if int(np.count_nonzero(four)) >= rule.least_equal:
        four = _in_full_blocks(four, lists, rule)
        if four.any():
            four = _contradicted(four, found, lists, pack_volt, rule)
            found = four if found is None else found | four
    return found if found is not None and found.any() else None


def _in_full_blocks(mask: Mask, lists: NumberLists, rule: PlaceholderRule) -> Mask:
    """Keep ``mask`` only in blocks that hold at least ``least_equal`` of it."""
    blocks = -(-lists.lengths // rule.block)
    first = np.concatenate(([0], np.cumsum(blocks)))
    inside = np.arange(first[-1]) - np.repeat(first[:-1], blocks)
    starts = np.repeat(lists.offsets[:-1], blocks) + inside * rule.block
    sizes = np.diff(np.concatenate((starts, [len(mask)])))
    full = np.add.reduceat(mask.astype(np.int32), starts) >= rule.least_equal
    kept: Mask = mask & np.repeat(full, sizes)
    return kept


def _contradicted(four: Mask, empty: Mask | None, lists: NumberLists, pack_volt: F64, rule: PlaceholderRule) -> Mask:
    """Keep the 4.00 V blocks of rows whose other cells, or whose pack voltage, say otherwise.

    The median of the other cells is off by more than ``neighbour_mv`` when most of them are, to one side.
    """
    level = rule.when_contradicted_mv
    measured = np.ones(len(four), np.bool_) if lists.states is None else lists.states == PRESENT
    if empty is not None:
        measured &= ~empty
    others = measured & ~four
    above = _count(others & (lists.values > level + rule.neighbour_mv), lists)
    below = _count(others & (lists.values < level - rule.neighbour_mv), lists)
    by_neighbours = 2 * np.maximum(above, below) > _count(others, lists)
    total = _sums(np.where(measured, lists.values, np.int16(0)), lists.offsets, lists.width)
    implied = total / np.maximum(_count(measured, lists), 1) * lists.lengths / CELL_SCALE
    by_pack = pack_volt > 0  # False for NaN
    for scale in rule.pack_scales:
        allowed = np.maximum(rule.pack_share * pack_volt * scale, rule.pack_v)
        by_pack &= np.abs(implied - pack_volt * scale) > allowed
    contradicted: Mask = four & np.repeat(by_neighbours | by_pack, lists.lengths)
    return contradicted
