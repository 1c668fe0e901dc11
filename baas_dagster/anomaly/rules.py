"""Every number of the detectors, episodes and the inspection queue, with unit, reason and source.

Belongs here: one settings block per detector, one for episodes, one for the queue. Does not belong here: numbers that
SQL uses too (``dbt_project.yml``), and what is learnt from the fleet (released baselines).

"DOMAIN n" is a section of the domain reference; [prop] marks a starting value of our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "RULES", "AnomalyRules", "CellRules", "EpisodeRules", "HealthRules", "InsulationRules", "OutcomeRules",
    "QueueRules", "SensorRules", "TemperatureRules",
]  # fmt: skip


# --- cells ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CellRules:
    """Cells: residuals at rest and on steady charge, spread, self-discharge, over- and undervoltage."""

    # --- which rows -------------------------------------------------------------------------------------------------
    standing_kmh: float = 1.0  # km/h; slower is standing (as dbt var moving_min_kmh)
    rest_current_max_a: float = 2.0  # A; |I| of a rest row (as dbt var of that name) ...
    rest_current_max_share: float = 0.02  # C; ... or this share of the capacity, whichever is larger (DOMAIN 6)
    quiet_s: float = (
        60.0  # s of small current before a rest row: the fast part of relaxation (20-30 s) is over, what is
    )
    # left differs between cells by less than 2 mV after 1 C [prop]
    logging_gap_s: float = 180.0  # s; a longer silence ends a window (as dbt var of that name)
    silence_s: float = 600.0  # s of silence that counts as rest; between the two nobody knows what the car did
    charge_current_min_a: float = (
        2.0  # A; a larger current into a standing car is a charge; twice the noise of DOMAIN 5
    )
    steady_a: float = 2.0  # A; a charge is steady where the current changes by less between rows (DOMAIN 3) ...
    steady_share: float = 0.02  # 1; ... or by less than this share: the taper of a fast charge at 60 s rows [prop]
    charge_min_s: float = 300.0  # s a steady stretch lasts at least: it then moves through 10 mV or more [prop]
    charge_min_rows: int = 5  # rows of it, at 60 s sampling
    window_rows_max: int = 240  # rows of one window that are read, evenly spread: noise of 1-2 mV is averaged to 0.1 mV
    # by 240, more only costs time
    full_row_share: float = (
        0.9  # 1; a row with fewer of its cells is a stale or broken message (01290000001 after gaps)
    )
    cell_min_mv: float = 1500.0  # mV; a cell outside is suspect, left out of averages and handed to FAULT_OR_SENSOR ...
    cell_max_mv: float = 4500.0  # mV; ... (as dbt vars of that name, DOMAIN 3)
    centre_clip_mv: float = 30.0  # mV; the middle of a row is its median moved by the mean of residuals clipped here: a
    # median of 20 mV steps jumps by 20 mV, and one cell cannot move it by more than 30 mV / cells

    # --- error of one residual --------------------------------------------------------------------------------------
    step_share: float = 0.98  # 1; share of values that are multiples of a step for it to be the resolution
    step_sd: float = 0.2887  # 1; standard deviation of rounding, in steps (1 / sqrt 12)
    window_sd_mv: float = 1.0  # mV; what differs from one rest to the next beside rounding: temperature, relaxation
    row_sd_mv: float = 3.0  # mV; error of one row beside rounding: noise 1-2 mV, blocks of a message read late
    block_sd_mv: float = (
        2.0  # mV; days are gathered until the mean residual is as good as this: a slow charge, or about
    )
    # ten looks of 20 mV, three of 1 mV
    block_days_max: float = 21.0  # d; a block that needs longer is given up: three rests a month judge nothing
    slow_charge_share: float = 0.25  # C; a slower charge shows resting residuals as well: 3 % of 1 mOhm x 45 A = 1.4 mV
    slow_charge_a: float = 30.0  # A; the same where the capacity is not known
    session_pause_s: float = 1800.0  # s; pieces of a charge that are nearer are one window (as dbt var of that name)
    sd_floor_mv: float = 5.8  # mV; smallest scale of a robust z: rounding of 20 mV steps (DOMAIN 7)

    # --- CELL_OUTLIER, CELL_LOWEST ----------------------------------------------------------------------------------
    outlier_z: float = 4.0  # 1; robust z of the mean residual (DOMAIN 7): 23.2 mV for a pack with small spread
    outlier_alarm_mv: float = (
        100.0  # mV; at 9 mV per % the cell is 11 % of charge off, a tenth of the range is gone [prop]
    )
    false_discovery: float = 0.01  # 1; Benjamini-Hochberg over the cells of one window
    moving_mv_per_month: float = 10.0  # mV in 30 d; a cell that leaves the pack faster is watched (DOMAIN 7) ...
    moving_z: float = 2.6  # 1; ... from this robust z on (15 mV): nearer to the pack it may be re-balancing
    moving_sds: float = 2.0  # 1; standard errors taken off its speed before
    moving_days: float = 30.0  # d over which it is looked at
    moving_min_days: float = 10.0  # d its readings must span
    moving_min_blocks: int = 5  # blocks in them
    lowest_z: float = 2.0  # 1; robust z below the pack that the lowest cell must stand apart by [prop]
    lowest_watch_pct: float = 20.0  # % of rest rows in which the cell is the lowest, ties shared out (DOMAIN 7)
    lowest_warn_pct: float = 50.0  # %; more often than all others together [prop]
    charge_slope_sd: float = (
        0.5  # mV per %; how a residual follows charge (unlike capacity), 1 sigma: 0.8 on 01290000003;
    )
    # it is taken off before a cell counts as moving or falling
    fall_mv: float = 8.0  # mV below its own earlier level that count as falling: a third of the reference fault [prop]
    fall_quantile: float = 0.8  # 1; that level: of its earlier ones the upper fifth, not the luckiest
    fall_days: float = 180.0  # d back to which that level is looked for
    unsure_share: float = (
        0.9  # 1; a figure beyond a line that significance does not bear out stands just below the line:
    )
    # it opens nothing and clears nothing

    # --- CELL_SPREAD ------------------------------------------------------------------------------------------------
    spread_warn_mv: float = 100.0  # mV (DOMAIN 7)
    spread_alarm_mv: float = 200.0  # mV (DOMAIN 7)
    spread_own_factor: float = 1.5  # 1; warn line against the pack's own median of the spread without its furthest cell
    spread_own_days: float = 90.0  # d of that median (DOMAIN 7)
    spread_own_min: int = 3  # charges for it

    # --- CELL_UNDERVOLT, CELL_OVERVOLT ------------------------------------------------------------------------------
    # Watch, warn, alarm in V. GB/T 32960.3 sends the alarms at the maker's thresholds. Cells are charged to 4.20 V
    # (NMC) and 3.65 V (LFP) and discharged to 2.8 V and 2.5 V at the terminals; protection acts 0.05-0.1 V beyond, so
    # that a value at the warn line means that it did not. At the alarm lines plating, gas and copper dissolution begin.
    overvolt_nmc_v: tuple[float, float, float] = (4.28, 4.32, 4.40)
    overvolt_lfp_v: tuple[float, float, float] = (3.70, 3.75, 3.85)
    undervolt_nmc_v: tuple[float, float, float] = (2.80, 2.65, 2.50)
    undervolt_lfp_v: tuple[float, float, float] = (2.50, 2.30, 2.00)
    volt_apart_v: float = (
        0.05  # V; where the whole pack is beyond a line (cold fast charge, full load), a cell must lie
    )
    # this far beyond the median cell for watch and warn; the alarm line does not move [prop]
    volt_shift_max_v: float = 0.10  # V; by no more than this
    lasting_rows: int = 3  # rows a value must last; fewer are noise (DOMAIN 3, 7) ...
    lasting_s: float = 10.0  # s; ... and this long, where rows come faster

    # --- CELL_SELF_DISCHARGE ----------------------------------------------------------------------------------------
    leak_ma: tuple[float, float, float] = (
        10.0,
        20.0,
        100.0,
    )  # mA, watch, warn, alarm. Healthy cells lose 1-3 % a month
    # (2-5 mA of 110 Ah), alike; 10 mA off the others empties a cell within the year, 100 mA within six weeks [prop]
    leak_sds: float = (
        3.0  # 1; standard errors that are taken off before a leak is judged: with 192 cells and a line that
    )
    # itself lies 2 or more away, chance needs 5
    leak_windows_d: tuple[float, ...] = (
        7.0,
        14.0,
        28.0,
    )  # d; short finds large leaks soon, long finds small ones at all
    leak_min_span: float = 0.5  # 1; share of the window its rests must span
    leak_min_rests: int = 6  # rests and slow charges in it
    leak_min_days: int = 4  # days with one
    leak_sd_max_ma: float = 12.0  # mA; a leak known less well is no reading: it opens nothing and clears nothing
    leak_level_mv: float = 5.0  # mV below the pack at its end: a leak lowers a cell, balancing bleeds those above
    leak_onsets: int = 16  # times in a window at which a fall may begin, or a step lie: 28 d in steps of 2
    leak_huber: float = 2.0  # sd beyond which one rest is weighted down
    leak_soc_sd: float = 0.2  # mV per % of charge; how a residual may follow charge (cells of unlike capacity), 1 sigma
    leak_current_sd: float = 0.05  # mV per A; how it may follow current (resistance 5 % of 1 mOhm), 1 sigma
    slope_nmc_mv_per_pct: float = 9.0  # mV per %; slope of NMC where no curve is known: 3.4-4.18 V over 90 % (data/ocv)
    slope_max_mv_per_pct: float = 20.0  # mV per %; steeper (the last points of charge) is not known well enough
    rest_min_n: int = 3  # blocks (or charges) of a car below which it cannot be judged


# --- temperature ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TemperatureRules:
    """Module temperatures: spread, heat, rise, sensors."""

    gap_s: float = 180.0  # s; rows further apart hold nothing (as dbt var logging_gap_s)
    hold_s: float = 60.0  # s over which a temperature must last (DOMAIN 7)
    hold_rows: int = 2  # rows it must show in: at 60 s rows a minute is two of them
    min_sensors: int = 3  # sensors without which none can be told to be apart: of two, either may be wrong
    spread_lines_k: tuple[float | None, float | None, float | None] = (
        7.0,
        10.0,
        15.0,
    )  # K from the median module; warn
    # and alarm after DOMAIN 7, watch: twice what healthy modules show (1.6 K and 0.6 K of gradient, 1 K steps) [prop]
    high_lines_c: tuple[float | None, float | None, float | None] = (45.0, 55.0, 60.0)  # degC (DOMAIN 7)
    hot_within_k: float = 2.0  # K below the hottest within which readings of 1 K tie; their means decide
    rise_lines_k_per_min: tuple[float | None, float | None, float | None] = (2.0, 3.0, None)  # K/min; warn: DOMAIN 7.
    # Watch: in steps of 1 K, two minutes at 3 K/min read as 2.5-3.5, healthy modules as 1.0 at the most (measured: rows
    # of 2-60 s, both real cars)
    rise_s: float = 120.0  # s over which a rise is taken (DOMAIN 7)
    rise_rows: int = 2  # steps between rows it must consist of
    rise_step_share: float = 0.7  # 1; a rise of which one step is more than this is a jump of the sensor [prop]
    stuck_s: float = 21_600.0  # s (DOMAIN 7: 6 h)
    stuck_moved_k: float = 3.0  # K by which the others move (DOMAIN 7)
    jump_k: float = 10.0  # K between two messages (DOMAIN 7)
    jump_gap_s: float = 60.0  # s; messages further apart may rightly differ by so much in a fire
    jump_goes_on_k: float = 3.0  # K by which the step before or after goes the same way: heat, not a jump [prop]
    others_move_k: float = 5.0  # K by which the others moved on some day before one that did not counts as absent
    sensor_exists_k: float = 2.0  # K by which a sensor must have moved on some day to exist: two of its steps [prop]
    sensor_moves_share: float = 0.01  # 1; of a month's rows off its usual value, below which it did not move: a sensor
    # that lives is off it in most rows, padding with a glitch in a few [prop]
    sensor_moves_days_share: float = 0.03  # 1; of the days, on which it must have moved: 2 at least of 3 and more
    # [prop]


# --- insulation -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class InsulationRules:
    """Insulation resistance in Ohm per volt."""

    gap_s: float = 180.0  # s; after a longer silence the car has woken (as dbt var logging_gap_s)
    wake_s: float = 60.0  # s after waking in which 0 means "not measured yet" (as dbt var insulation_wake_s)
    min_voltage_v: float = 50.0  # V; no pack of a car has less: a voltage below is a broken row
    held_rows: int = 3  # messages over which it must last ... (DOMAIN 7)
    held_s: float = 10.0  # s; ... or so long (DOMAIN 7)
    warn_ohm_per_v: float = 500.0  # Ohm/V (ISO 6469-3, alternating current; DOMAIN 7)
    alarm_ohm_per_v: float = 100.0  # Ohm/V (ISO 6469-3, direct current; DOMAIN 7)
    zero_watch_s: float = 600.0  # s of 0 beyond waking that are watched: a self-test takes a minute or two, a monitor
    # that is off while a charger watches takes longer, and so does a fault [prop]


# --- sensors ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SensorRules:
    """Frozen signals, SoC jumps, low SoC, values that could be a fault or a sensor."""

    gap_s: float = 180.0  # s; rows further apart hold nothing (as dbt var logging_gap_s)
    held_rows: int = 3  # messages over which a value must last; one alone is noise (DOMAIN 3)
    frozen_s: float = 120.0  # s (DOMAIN 3)
    frozen_kmh: float = 5.0  # km/h (DOMAIN 3)
    frozen_speeds: int = 2  # different speeds of a speed that changes
    jump_pct: float = 3.0  # points (DOMAIN 3)
    jump_warn_pct: float = 6.0  # points; twice that: a step that no rounding or anchoring explains [prop]
    jump_s: float = 120.0  # s between the two messages (DOMAIN 3)
    jump_counted_s: float = 1_800.0  # s; up to here the counters can confirm a step, and no pack has rested for so long
    # that its BMS anchors the SoC to the rest voltage (which takes hours, DOMAIN 6)
    jump_flickers: int = 3  # single messages a day that are off: fewer are noise (DOMAIN 3), more repeat [prop]
    counter_step_ah: float = 0.2  # Ah; both counters are rounded to 0.1 Ah (DOMAIN 1)
    full_from_pct: float = 97.0  # %; a step up to here while charging is the BMS leading its SoC to full
    capacity_shares: tuple[float, float] = (0.7, 1.1)  # 1; of the nominal capacity, a pack's own: aged to 70 %, or 10 %
    # larger than registered (the same family is used with 55.6-60.3 Ah a cell, DOMAIN 1)
    capacities_ah: tuple[float, float] = (50.0, 250.0)  # Ah; where the nominal capacity is not known
    low_s: float = 60.0  # s for which a SoC must stay low
    soc_low_pct: float = 5.0  # %; below, cars limit their power and deep discharge is near [prop]
    soc_empty_pct: float = 1.0  # %; the car stands [prop]
    cell_min_v: float = 1.5  # V (DOMAIN 3)
    cell_max_v: float = 4.5  # V (DOMAIN 3)
    temp_max_c: float = 90.0  # degC (DOMAIN 3)
    temp_min_c: float = -40.0  # degC (DOMAIN 3)
    current_max_a: float = 600.0  # A (DOMAIN 3)
    fault_s: float = 20.0  # s for which such a value must last ... [prop]
    fault_rows: int = 10  # ... and messages: 30 rows of 1 s are a fault, a glitch of a few is not [prop]
    fault_repeats: int = 30  # messages of a day beyond such a limit that need not follow each other ... [prop]
    fault_repeat_share: float = 0.01  # 1; ... and their share of the day's: a bus garbles one in a thousand (64 rows of
    # 66,660 on car 01290000001) [prop]
    insulation_zero_s: float = 1_500.0  # s of insulation 0 beyond waking without another reading, silences left out,
    # that are no waiting any more: within half an hour of waking [prop]
    insulation_days: int = 2  # days that must read nothing but 0 before the car counts as one that does not measure it


# --- health, counters, fleet ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class HealthRules:
    """State of health, fade, power, SoC bias, counters, silence: judged from marts."""

    soh_line_pct: float = 80.0  # %; the contract's line (DOMAIN 7)
    soh_second_line_pct: float = 70.0  # %; the contract's second line, told in the evidence (DOMAIN 7)
    slope_typical_pct_per_year: float = -2.0  # points a year; fleets' mean where no baseline is released (DOMAIN 6)
    slope_months: int = 12  # months of one slope: the battery rules' trend_months, which a test holds equal
    slope_half_width_max: float = 6.0  # points a year; a wider interval tells nothing, wherever it lies: twice what
    # identifies a slope (battery rules), so that a car that fades by 8 points a year shows within a year [prop]
    slope_p90_pct_per_year: float = -3.5  # points a year; ... and the worst tenth of them: 3 for heavy DC, +0.4 hot
    power_min_n: int = 30  # current steps of a month and band that make a resistance (as dbt var power_step_min_n)
    power_watch: float = 1.35  # 1; resistance against type or start that is watched: half-way to the warning [prop]
    power_warn: float = 1.5  # 1; ... and warned of (DOMAIN 7)
    power_limit_share: float = 0.7  # 1; acceptable power against the type's that is warned of (DOMAIN 7)
    baseline_min_cars: int = 5  # cars of a type whose median makes a line: two ill ones do not move it far [prop]
    baseline_min_slopes: int = 10  # cars whose slopes make a 10th percentile
    own_start_months: int = (
        3  # first months of a band that are the car's own start: seasons pass within the band [prop]
    )
    soc_bias_pct: float = 5.0  # points the BMS's SoC may be off the rest voltage's (DOMAIN 7)
    soc_bias_excludes_pct: float = 3.0  # points that the interval must lie beyond (DOMAIN 7)
    unsure_share: float = 0.9  # 1; an estimate beyond its line whose interval is not stands just below it: it opens no
    # episode, and closes none either [prop]
    drift_line_pct: float = 1.0  # %; smallest imbalance of counters that the audit is to find (DOMAIN 6)
    silent_days: float = (
        14.0  # d without a row until a car counts as silent: longer than a holiday's rest is not [prop];
    )
    # the SoC in a longer silence is unknown (DOMAIN 5)
    silent_warn_days: float = 45.0  # d; a whole monthly delivery has been missed [prop]
    z90: float = 1.645  # standard normal quantile of a two-sided 90 % interval
    z99: float = 2.576  # ... of a 99 % interval


# --- episodes ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class EpisodeRules:
    """Opening, rising and closing of episodes (severity table of DOMAIN 7)."""

    windows_watch: int = 2  # independent windows beyond a watch or warn line that open severity 1 (DOMAIN 7)
    windows_warn: int = 3  # windows beyond a warn line that open severity 2 (DOMAIN 7)
    windows_alarm: int = 2  # windows beyond an alarm line that open severity 3 (DOMAIN 7)
    trend_days: float = 60.0  # days within which a trend must reach the alarm line for severity 2 (DOMAIN 7)
    trend_windows: int = 6  # readings that make a trend: fewer give no standard error worth the name [prop]
    trend_span_days: float = 7.0  # days they must span: a trend over less is weather [prop]
    trend_z: float = 3.0  # standard errors by which a trend must differ from none [prop]
    clear_share: float = 0.8  # 1; below this share of a line counts as clear (DOMAIN 7)
    clear_days: tuple[float, float, float] = (14.0, 21.0, 60.0)  # days of data that close severity 1, 2, 3 (DOMAIN 7)


# --- queue ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class QueueRules:
    """Score and length of the inspection queue.

    The score is a sum of components, each 0 to 1 times its weight; the weights add up to 100 points. A step of severity
    is worth as much as everything else together, so that the order never contradicts the severity table; within a
    severity the rest decides. ValueError where replaced numbers break that.
    """

    hot_from_c: float = 35.0  # degC from which calendar ageing of NMC doubles against 25 degC (Arrhenius, 50 kJ/mol)

    # --- weights: points of a component that is 1 ---
    severity_points: tuple[float, float, float] = (10.0, 40.0, 70.0)  # of the worst proven case at severity 1, 2, 3:
    # steps of 30 to 2 and to 3, what all other components weigh together [prop]
    weight_growth: float = 6.0  # what gets worse cannot wait for the next list: the most after severity [prop]
    weight_blindness: float = 8.0  # a car that nobody can see ranks beside one that is watched (severity 1, 10 points
    # and what it gathers), far below what is proven (severity 2, 40 points) [prop]
    weight_cases: float = 5.0  # independent cases in one car: one visit answers them all [prop]
    weight_excess: float = 3.0  # how far beyond its line: already told by severity, orders within one [prop]
    weight_persistence: float = 3.0  # seen in many windows: less likely a whim of the data [prop]
    weight_exposure: float = 2.0  # parked full ages cells and makes a fault's outcome worse; no fault by itself [prop]
    weight_heat: float = 2.0  # the same of heat [prop]
    weight_age: float = 1.0  # an old case moves up slowly, so that nothing waits for ever [prop]

    # --- what makes a component 1 ---
    growth_days: float = 30.0  # d; a case that grows by its own line in that time: until the next monthly list [prop]
    growth_told: float = (
        0.1  # 1; of its line in that time from which the reasons say "getting worse": less is noise [prop]
    )
    half_windows: float = 10.0  # windows seen that make persistence a half: three times what severity 2 needs [prop]
    high_soc_share_full: float = 0.5  # 1; of the parked hours at >= 95 % SoC: a car charged full every night [prop]
    hot_share_full: float = 0.2  # 1; of the hours at >= 35 degC: five hours of each day [prop]
    age_full_days: float = 180.0  # d a case is open: half a year is longer than any visit is put off [prop]

    # --- what cannot be seen ---
    silent_from_days: float = 7.0  # d without data that count for nothing: a holiday [prop]
    silent_full_days: float = 60.0  # d without data after which a car is not seen at all: two monthly deliveries [prop]
    data_days_enough: int = 9  # days with data of the last 90 from which a car counts as seen: three a month give the
    # three windows that severity 2 needs within a month [prop]
    blind_when_silent: float = 0.6  # 1; least blindness of an open DEVICE_SILENT [prop]
    blind_when_gated: float = 0.6  # 1; ... and of an open PARTITION_GATED: a month of unknown content [prop]
    blind_when_hiding: float = 1.0  # 1; ... of either at severity 2: it hides what another episode needs (DOMAIN 7)
    blind_listed: float = 0.5  # 1; blindness from which a car is on the list for that alone: all cell codes unjudged
    family_weights: tuple[tuple[str, float], ...] = (  # 1; what not judging a family weighs: cells and temperature are
        ("cells", 0.5), ("temperature", 0.25), ("insulation", 0.15), ("charge", 0.05), ("health", 0.05),
    )  # fmt: skip
    # where fires begin and insulation where people get hurt; counters and health are money [prop]

    # --- length ---
    places_min: int = 5  # cars on the list of a small fleet: about one workshop's slots of a week [prop]
    places_share: float = 0.05  # 1; of the fleet a month. Serious faults are 0.04-0.08 % of cars a year (DOMAIN 7) and
    # small ones some per cent; healthy cars raise up to 1 false episode in 100 car-months, so 5 % is room for
    # all of these and still a list that is worked off. Severity 3 does not take a place [prop]

    # --- what closed by itself ---
    unreported_severity: int = 1  # what an episode of severity 3 counts as that 60 clear days closed and nobody looked
    # at: it stays on the list, behind what is open, until a workshop says what it was [prop]
    unreported_days: float = 365.0  # d after its closing; by then a yearly inspection has seen the car [prop]

    # --- words ---
    reasons_max: int = 4  # cases that are told; the others are counted [prop]
    replace_severity: int = 2  # from here on low health means a new pack: its interval lies below the line (DOMAIN 7)

    @property
    def weights(self) -> dict[str, float]:
        """Component -> its weight in points; together 100."""
        return {
            "severity": self.severity_points[2], "cases": self.weight_cases, "excess": self.weight_excess,
            "growth": self.weight_growth, "persistence": self.weight_persistence, "exposure": self.weight_exposure,
            "heat": self.weight_heat, "blindness": self.weight_blindness, "age": self.weight_age,
        }  # fmt: skip

    def __post_init__(self) -> None:
        first, second, third = self.severity_points
        weights = self.weights
        rest = sum(weights.values()) - third
        if min(weights.values()) < 0 or min(second - first, third - second) < rest - 1e-9 or first <= 0:
            raise ValueError(f"a step of severity_points is worth less than the {rest:g} points of all other weights")


# --- outcomes ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OutcomeRules:
    """What workshops found, against what the list had said."""

    match_days: float = 365.0  # d; an episode that closed longer before the visit did not foretell it [prop]
    precision_min_n: int = 10  # visits below which no precision is told: 9 of 9 still allows 77 % (Wilson, 90 %)
    z90: float = 1.645  # standard normal quantile of a two-sided 90 % interval


@dataclass(frozen=True)
class AnomalyRules:
    """All of them."""

    cells: CellRules = field(default_factory=CellRules)
    temperature: TemperatureRules = field(default_factory=TemperatureRules)
    insulation: InsulationRules = field(default_factory=InsulationRules)
    sensors: SensorRules = field(default_factory=SensorRules)
    health: HealthRules = field(default_factory=HealthRules)
    episodes: EpisodeRules = field(default_factory=EpisodeRules)
    queue: QueueRules = field(default_factory=QueueRules)
    outcomes: OutcomeRules = field(default_factory=OutcomeRules)


RULES = AnomalyRules()
