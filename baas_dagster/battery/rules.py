"""Every number of the battery estimates, with unit, reason and source.

Belongs here: limits, error sizes and priors that ``battery`` works with. Does not belong here: numbers that SQL uses
too (``dbt_project.yml``), and what is learnt from the fleet (released curves).

Sizes of errors are 1 sigma. "DOMAIN n" is a section of the domain reference; [prop] marks a starting value of our own.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RULES", "BatteryRules"]


@dataclass(frozen=True)
class BatteryRules:
    """Numbers of the battery estimates. Tests and callers may replace single ones."""

    # --- rests ------------------------------------------------------------------------------------------------------
    rest_min_h: float = 2.0  # h of silence before a reading is a rest voltage (DOMAIN 6)
    anchor_rest_h: float = 4.0  # h after which the SoC of the first rows shows the maker's table (DOMAIN 6)
    # V; pack_volt / cell_count and the mean cell further apart: one of them is wrong. The mean of 0.02 V cells is
    # good to 2 mV, a missing cell of 90 shifts it by 40 mV
    cell_check_v: float = 0.015
    # points of SoC moved one way after which the voltage hysteresis is complete: minor loops of graphite and NMC
    # close within 5-15 points [prop]
    direction_run_pct: float = 10.0
    direction_turn_pct: float = 1.0  # points moved back that begin a new direction (two steps of 0.5)
    regen_share_max: float = 0.6  # 1; charge / discharge of one awake period above which it holds more than driving
    load_share_max: float = 0.1  # 1; discharge / charge of one awake period above which it holds more than charging
    hole_share: float = 0.02  # 1; share of an awake period that was not integrated: its integral is no charge balance
    unseen_soc_pct: float = 2.0  # points of SoC that move over a silence when charge flowed unseen (DOMAIN 5)

    # --- state of charge from rest voltage --------------------------------------------------------------------------
    flat_mv_per_pct: float = 3.0  # mV per point; flatter, and SoC from rest voltage is not identifiable (DOMAIN 6)
    flat_window_pct: int = 3  # points on both sides over which that slope is taken: single steps of a 1 % grid jitter
    plateau_share: float = 0.3  # 1; a chemistry with more of its curve flat (LFP: 57 %) has no rest-pair method at all
    # V; random error of one rest voltage: 0.1 V over 90-192 cells is 0.5 mV, what is left to relax after 2 h 1 mV,
    # temperature 1 mV
    rest_sd_v: float = 0.0015
    # points; random error by temperature: 20 K are 1 point or less (data/ocv), 6 K of scatter
    rest_temp_sd_pct: float = 0.3
    soc_sd_max_pct: float = 12.0  # points; an SoC less certain than this is not used
    # points of SoC over which a car's curve is off alike (Matern 3/2): staging of graphite and the transitions of NMC
    # are features of 20-30 points; the fleet's rests then say how far
    curve_correlation_pct: float = 20.0
    curve_correlation_log_sd: float = 0.5  # 1; that is good to a factor of 1.6 (1 sigma)
    curve_correlations_pct: tuple[float, ...] = (8.0, 12.0, 18.0, 26.0)  # points; reaches weighed against each other

    # --- outside and learnt curves ----------------------------------------------------------------------------------
    # points; floor of the spread between outside curves (2-6 points rms, data/ocv): few curves of few cells show too
    # little of it
    outside_sd_min_pct: float = 3.5
    # 1; the spread of three cells is widened: none of them is the cell in the car. Read with the mean of all NMC
    # curves, a 30 -> 80 % pair errs by 20 %; within one variant by the 10 % of the floor (measured)
    outside_sd_factor: float = 1.2
    # points, and V below 0 and above 100 %: an outside curve is led on so far, so that a cell outside of its voltages
    # has a place; 20 mV per point below (NMC: 16 at 8 %, much more at 0), 10 mV above (8 to 18 in the last ten) [prop]
    outside_reach_pct: float = 12.0
    outside_reach_low_v: float = 0.24
    outside_reach_high_v: float = 0.12
    # 1; spread between pack types of one chemistry and fleet against that of outside curves [prop]
    sibling_share: float = 0.5
    learn_knot_pct: float = 2.5  # points between the knots of a learnt table
    learn_correlation_pct: float = 12.0  # points over which a learnt table may deviate alike from its prior
    anchor_share_prior: float = 0.6  # 1; share by which a BMS moves to its table over a rest [prop: wholly or partly]
    anchor_share_sd: float = 0.3  # 1; spread of that share
    anchor_share_min: float = 0.1  # 1; below, a car's rests say nothing of the table
    soc_step_pct: float = 0.5  # points; resolution of the SoC (DOMAIN 1)
    soc_read_sd_pct: float = 0.2  # points; one reading of a SoC in 0.5 % steps (0.14), and clamping at both ends
    # points; how far the table of one car may lie off its type's: what partial anchoring leaves of its counting error
    car_table_sd_pct: float = 0.5
    learn_huber: float = 2.0  # sd beyond which a car's table is weighted down
    # points of SoC a step over a rest may go beyond the table: more is no step towards it, something else moved the SoC
    # (6 steps of its resolution) [prop]
    learn_wild_pct: float = 3.0
    # robust sd (1.4826 MAD) beyond which a step between rests contradicts the coulombs of the others [prop] ...
    learn_contradict_sd: float = 5.0
    # points; ... which is at least the error of two rest voltages (2 mV at 3 mV per point)
    learn_contradict_min_pct: float = 0.7
    hysteresis_prior_v: float = 0.014  # V; half gap: 22-34 mV of gap for NMC111 (data/ocv)
    hysteresis_prior_sd_v: float = 0.005  # V; cells with silicon reach 30 mV
    hysteresis_car_share: float = 0.25  # 1; spread of the half gap from car to car and with its history [prop]
    # V; spread of the cars' curves around their type's: 5 % lost lithium 10-30 mV (data/ocv), of which the larger
    # part is a shift that the anchor of the table follows [prop]
    spread_prior_v: float = 0.007
    # points; where a curve is all but flat, the spread of the cars' curves says "unknown" (half the scale), not more
    spread_max_pct: float = 50.0
    spread_prior_log_sd: float = 0.5  # 1; that prior is good to a factor of 1.6 (1 sigma)
    learn_max_rests: int = 80  # last rests of one car whose coulombs are looked at: a curve has few features
    spread_prior_cars: float = 4.0  # cars that weigh as much as the prior of the spread of hysteresis
    # log likelihood by which one car may speak against a spread: bounds a car that is broken
    learn_car_say: float = 4.0
    learn_min_rests: int = 20  # anchored rests below which nothing is learnt for a pack type

    # --- the pack ---------------------------------------------------------------------------------------------------
    # 1; confidence from which a pack type is known: 0.95 from the vehicle master, 0.7 at most from the number of cells
    sure_of_type: float = 0.9

    # --- capacity ---------------------------------------------------------------------------------------------------
    min_soc_delta_pct: float = 20.0  # points; smaller changes say too little (DOMAIN 6)
    # points between the rests of a pair; the curve's error at both ends makes smaller ones worthless (5 mV at 4 mV
    # per point is 1.2 points)
    pair_min_delta_pct: float = 25.0
    pair_max_days: float = 14.0  # days between the rests of a pair: longer, and current offset and parked loss add up
    pair_sd_max_share: float = 0.06  # 1; a pair less certain than this is no estimate: the echo of the BMS has 4 %
    # 1; gain of the current sensor, in counters as well; never seen from inside (DOMAIN 6)
    current_gain_sd: float = 0.005
    current_offset_sd_a: float = 0.1  # A; offset of the current sensor while awake (DESIGN 7; 0.3 A is a fault)
    parked_sd_a: float = 0.015  # A; what leaves a parked pack unseen by counters: 5-15 W into the 12 V battery
    counter_step_ah: float = 0.1  # Ah; resolution of the lifetime counters (DOMAIN 1)
    integral_sd_share: float = 0.005  # 1; charge from integration of rows at most 10 s apart
    # points; SoC at a step, where its value is known to better than its resolution: IQR 0.3 Ah of 118 Ah at 40 points
    # on 01290000003 (DOMAIN 5) is 0.05
    soc_step_sd_pct: float = 0.1
    soc_plain_sd_pct: float = 0.5  # points; SoC of any row (DOMAIN 6: 0.5-1)
    full_from_pct: float = 98.0  # %; a charge that ends above is led to 100 by the BMS ...
    full_sd_pct: float = 1.5  # points; ... which moves its SoC by what it had drifted (SoC drift between full charges)
    # 1; error of the capacity the BMS counts with: systematic in the charge method (DESIGN 7)
    bms_capacity_sd: float = 0.04
    pool_huber: float = 2.0  # sd beyond which a single estimate is weighted down
    # 1; random variance in the weights against the stated one: how near to each other two SoCs may lie before their
    # difference counts as known
    pool_random_factor: float = 4.0
    # 1; part of a curve's error that the weights take as shared; with 1 the answer hangs on the form of the
    # correlation (docs/methods.md: median error 1.8 against 2.1 at 0, outliers at 1)
    pool_curve_trust: float = 0.75
    # 1; variance of drifts in the weights against the stated one: near to taking them out
    pool_drift_factor: float = 9.0

    # --- state of health --------------------------------------------------------------------------------------------
    # %; a nominal capacity guessed from the number of cells alone that gives less ...
    guessed_soh_min_pct: float = 75.0
    # %; ... or more is not of this car: 96 cells are a pack of 180 Ah and of 114 Ah (01290000001); a car that is
    # known to be of the type keeps its figure however low [prop]
    guessed_soh_max_pct: float = 110.0
    window_months: int = 3  # months whose estimates make one SoH: chosen by measured accuracy, docs/methods.md
    window_months_max: int = 6  # months, where fewer than ``min_estimates`` lie in the window
    # 1; share of the last rests whose SoC is identifiable: with less, that is why a SoH is missing, not their number
    # [prop]
    identifiable_share_min: float = 0.5
    min_estimates: int = 2  # estimates of a method for a SoH of it (issue: two rest pairs)
    new_capacity_sd: float = 0.01  # 1; new capacity of cars around their type's nominal (DESIGN 7)
    # points; a SoH less certain than this is not published: an outside curve's 10 % still is
    soh_sd_max_pct: float = 12.0
    z90: float = 1.645  # standard normal quantile of a two-sided 90 % interval

    # --- trend ------------------------------------------------------------------------------------------------------
    trend_months: int = 12  # months of one slope: 0.45 %/yr at 12 months (DOMAIN 6); longer ones hide a knee
    trend_min_months: int = 3  # months with estimates below which no slope is given (3.8 %/yr, DOMAIN 6)
    trend_min_estimates: int = 6  # estimates below which no slope is given
    trend_huber: float = 2.0  # sd beyond which an estimate is weighted down
    # 1; of the median sd, the least an estimate may claim: Huber bounds how far an estimate pulls in units of its own
    # sd, so one that claims a tenth would pull ten times as hard [prop]
    trend_sd_floor_share: float = 0.5
    # points; ... and the least in any case: a counter's step of 0.1 Ah on the smallest pack
    trend_sd_min_pct: float = 0.1
    slope_prior_pct_per_year: float = -2.0  # points a year: mean of 22,700 vehicles (Geotab 2025, DOMAIN 6)
    slope_prior_sd: float = 1.0  # points a year: 1.5 (AC) to 3 (DC), +0.4 hot, +0.8 high use (the same)
    # points a year of half width: wider, and a flat car cannot be told from one at 6 %/yr
    slope_identifiable: float = 3.0
    # points a year: a BMS that does not follow hides the fade; its 4 % come about in 1-2 years
    echo_slope_sd: float = 3.0
    # points a year by which a window's age makes its SoH uncertain (the prior's mean)
    fade_sd_pct_per_year: float = 2.0


RULES = BatteryRules()
