"""Where curves come from: the outside ones per chemistry, and the one learnt from the rests of a fleet.

Belongs here: the spread of outside curves, learning a pack type's table from rests, quality figures. Does not belong
here: reading SoC from a curve (``curve``), which version is active.

Learning (DOMAIN 6, "The curve decides"). After hours of rest a BMS moves its SoC towards its maker's table T(V): wholly
or by a share a of its own, so after = before + a (T(V) - before). Share and table are found together: the share per
car, the table over all cars, beginning at the outside curve, whose spread is the prior (Bayesian linear model on knots;
a car off the others is weighted down). Cars of other pack types of the chemistry pull the prior first. Then coulombs
between two rests, which must be proportional to the difference of SoC, give what the table cannot: the hysteresis of
the cells and the spread of the cars' own curves around the type's, which no number of rests of one car averages out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from baas_dagster.battery.capacity import direction_number
from baas_dagster.battery.curve import SOC_PCT, Curve, RestSoc, correlation, soc_from_rest
from baas_dagster.battery.rules import RULES, BatteryRules

__all__ = ["SOC_PCT", "Curve", "RestSoc", "learn", "outside_curve", "soc_from_rest"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CELLS = {"Chen2020": 0.5, "ORegan2022": 0.5}
"""Weight of curves that are of one and the same cell; 1 for all others."""


def _fine(rules: BatteryRules) -> Floats:
    """Grid on which a learnt table is made monotone and turned round, points of the outside curve's SoC."""
    return np.arange(-rules.outside_reach_pct, 100 + rules.outside_reach_pct + 0.25, 0.5)


def outside_curve(reference: pl.DataFrame, chemistry: str, rules: BatteryRules = RULES) -> Curve:
    """Mean of the outside curves of a chemistry (NMC: every NMC variant), with their spread as its error.

    ``reference``: rows of the seed ``ocv_reference`` (curve, chemistry, soc_pct, ocv_v). ValueError for a chemistry
    without.
    """
    rows = reference.filter(pl.col("chemistry").str.starts_with(chemistry)).sort("curve", "soc_pct")
    if rows.is_empty():
        raise ValueError(f"no outside curve of chemistry {chemistry!r}")
    names = rows["curve"].unique(maintain_order=True).to_list()
    volts = np.vstack([rows.filter(pl.col("curve") == name)["ocv_v"].to_numpy() for name in names])
    weight = np.array([_CELLS.get(name, 1.0) for name in names])
    mean_v = _rising(np.average(volts, axis=0, weights=weight), 1e-4)
    read = np.vstack([np.interp(mean_v, _rising(own, 1e-6), SOC_PCT) for own in volts])
    centre = np.average(read, axis=0, weights=weight)
    n = weight.sum()
    sd: Floats = np.sqrt(np.average((read - centre) ** 2, axis=0, weights=weight) * n / max(n - 1, 1))
    sd = np.convolve(np.pad(sd, 10, mode="edge"), np.full(21, 1 / 21), mode="valid")  # three cells cross by chance
    edge = np.minimum(np.minimum(SOC_PCT, 100 - SOC_PCT) / 15, 1.0)  # 0 and 100 % are defined by the voltage
    sd = np.maximum(sd * rules.outside_sd_factor, rules.outside_sd_min_pct * (0.4 + 0.6 * edge))
    return Curve(
        chemistry,
        "",
        np.round(mean_v, 4),
        np.round(sd, 2),
        rules.hysteresis_prior_v,
        float(np.hypot(rules.hysteresis_prior_sd_v, rules.hysteresis_car_share * rules.hysteresis_prior_v)),
        rules.curve_correlation_pct,
        rules=rules,
    )


def _rising(values: Floats, least: float) -> Floats:
    """The values with every step at least ``least``."""
    steps = np.arange(len(values)) * least
    return np.asarray(np.maximum.accumulate(values - steps) + steps)


@dataclass(frozen=True, eq=False)
class _CarBins:
    """Anchored rests of the cars of one pack type, cut into cells of car and knot."""

    car: Ints  # per rest
    u: Floats  # SoC that the outside curve gives
    before: Floats
    after: Floats
    cars: list[str]

    def __len__(self) -> int:
        return len(self.u)


def learn(
    rests: pl.DataFrame, chemistry: str, pack_type: str, outside: Curve, rules: BatteryRules = RULES
) -> Curve | None:
    """The curve of a pack type from the rests of its fleet; None where they are too few, or the chemistry has a
    plateau.

    On a plateau the BMS itself reads nothing from its voltage, so that its rests teach nothing.

    ``rests``: rows of ``rests.REST_SCHEMA`` with ``pack_type``, of all cars of the chemistry, in any order (the result
    does not depend on it). Cars of other pack types only move the prior. Quality: cars, rests, rms residual of the
    table (points), steps between rests and their rms residual (points), share of steps whose coulombs contradict the
    others (5 sd).
    """
    if outside.is_plateau:
        return None
    rests = rests.unique(["device_no", "rest_at"], keep="first", maintain_order=False).sort("device_no", "rest_at")
    own = rests.filter(pl.col("pack_type") == pack_type)
    anchored = _anchored(own, outside, rules)
    if len(anchored) < rules.learn_min_rests:
        return None
    fine = _fine(rules)
    knots = np.arange(fine[0], fine[-1] + rules.learn_knot_pct, rules.learn_knot_pct)
    prior_sd = np.interp(knots, SOC_PCT, outside.sd_soc_pct)
    prior_cov = prior_sd[:, None] * _smooth(knots, rules.learn_correlation_pct) * prior_sd[None, :]
    mean, cov = np.zeros(len(knots)), prior_cov
    siblings = [name for name in sorted(set(rests["pack_type"].to_list())) if name != pack_type]
    found = [(_anchored(rests.filter(pl.col("pack_type") == name), outside, rules)) for name in siblings]
    found = [other for other in found if len(other) >= rules.learn_min_rests]
    if found:
        mean, cov = _between(found, knots, mean, prior_cov, rules)
    table, posterior, shares, residual = _fit(anchored, knots, mean, cov, rules)
    ocv_v, sd_table = _turned(knots, table, posterior, outside, rules)
    first = Curve(
        chemistry,
        pack_type,
        ocv_v,
        sd_table,
        outside.hysteresis_v,
        outside.hysteresis_sd_v,
        rules.curve_correlation_pct,
        "fleet",
        rules=rules,
    )
    balance = _coulombs(own, first, rules)
    slope_v = np.maximum(first.slope_mv_per_pct, 1.0) / 1000
    sd_soc: Floats = np.hypot(sd_table, np.minimum(balance.spread_v / slope_v, rules.spread_max_pct))
    return Curve(
        chemistry=chemistry,
        pack_type=pack_type,
        ocv_v=ocv_v,
        sd_soc_pct=np.round(sd_soc, 2),
        hysteresis_v=round(balance.hysteresis_v, 4),
        hysteresis_sd_v=round(balance.hysteresis_sd_v, 4),
        correlation_pct=round(balance.correlation_pct, 1),
        origin="fleet",
        quality={
            "cars": float(len(anchored.cars)),
            "rests": float(len(anchored)),
            "siblings": float(sum(len(other.cars) for other in found)),
            "table_rms_pct": round(residual, 3),
            "table_sd_pct": round(float(np.median(sd_table[20:96])), 3),
            "anchor_share": round(float(np.median(shares)), 3),
            "spread_mv": round(1000 * balance.spread_v, 2),
            "steps": float(balance.n),
            "step_rms_pct": round(balance.rms_pct, 3),
            "contradicting_share": round(balance.contradicting, 4),
        },
        rules=rules,
    )


def _smooth(knots: Floats, length: float) -> Floats:
    """Matern 3/2 correlation between knots."""
    distance = np.sqrt(3) * np.abs(knots[:, None] - knots[None, :]) / length
    return np.asarray((1 + distance) * np.exp(-distance))


def _led_on(outside: Curve, rules: BatteryRules) -> tuple[Floats, Floats]:
    """SoC and voltage of the outside curve, led on beyond both ends: a cell outside of its voltages has a place."""
    reach = rules.outside_reach_pct
    low, high = outside.ocv_v[:1] - rules.outside_reach_low_v, outside.ocv_v[-1:] + rules.outside_reach_high_v
    return np.concatenate([[-reach], SOC_PCT, [100 + reach]]), np.concatenate([low, outside.ocv_v, high])


def _anchored(rests: pl.DataFrame, outside: Curve, rules: BatteryRules) -> _CarBins:
    """Rests long enough for the BMS to have looked at its table, with SoC before and after."""
    kept = rests.filter(
        (pl.col("rest_h") >= rules.anchor_rest_h)
        & pl.col("soc_bms_pct").is_not_null()
        & pl.col("soc_before_pct").is_not_null()
        & pl.col("cell_v").is_not_null()
        & (pl.col("soc_bms_pct") > 1)
        & (pl.col("soc_bms_pct") < 99.5)  # a reading at its stop says nothing about where the table is
    )
    cars = sorted(set(kept["device_no"].to_list()))
    number = {name: i for i, name in enumerate(cars)}
    car = np.array([number[name] for name in kept["device_no"].to_list()], dtype=np.int64)
    outside_soc, outside_v = _led_on(outside, rules)
    u = np.interp(kept["cell_v"].to_numpy(), outside_v, outside_soc)
    return _CarBins(car, u, kept["soc_before_pct"].to_numpy(), kept["soc_bms_pct"].to_numpy(), cars)


def _hats(u: Floats, knots: Floats) -> tuple[Ints, Floats]:
    """Knot left of each value and the share of the knot right of it."""
    step = knots[1] - knots[0]
    place = np.clip((u - knots[0]) / step, 0, len(knots) - 1.001)
    left = place.astype(np.int64)
    return left, place - left


def _fit(
    data: _CarBins, knots: Floats, mean: Floats, cov: Floats, rules: BatteryRules
) -> tuple[Floats, Floats, Floats, float]:
    """Table (deviation from the outside curve at the knots), its covariance, the share per car, rms residual.

    Each car's rests are first brought together per knot, so that a car counts by how well it knows a place and not by
    how often it was there; what a car's own table may be off is an error of its own that its rests share.
    """
    left, right = _hats(data.u, knots)
    n_cars, n_knots = len(data.cars), len(knots)
    precision = np.linalg.inv(cov + 1e-9 * np.eye(n_knots))
    shares = np.full(n_cars, rules.anchor_share_prior)
    delta, posterior = mean, cov
    car_weight = np.ones(n_cars)
    nearest = left + (right > 0.5)
    cell = data.car * n_knots + nearest
    cells, place = np.unique(cell, return_inverse=True)
    cell_car, n_cell = cells // n_knots, np.bincount(place)
    mean_u = np.bincount(place, data.u) / n_cell
    c_left, c_right = _hats(mean_u, knots)
    design = np.zeros((len(cells), n_knots))
    design[np.arange(len(cells)), c_left] = 1 - c_right
    design[np.arange(len(cells)), c_left + 1] = c_right
    residual = np.zeros(len(cells))
    for _ in range(8):
        share = shares[data.car]
        seen = (data.after - (1 - share) * data.before) / share - data.u
        seen_sd = rules.soc_read_sd_pct * np.sqrt(1 + (1 - share) ** 2) / share
        fitted = delta[left] * (1 - right) + delta[left + 1] * right
        robust = 1 / np.maximum(1.0, np.abs(seen - fitted) / (3 * seen_sd + 2.0)) ** 2
        weight = robust / seen_sd**2
        cell_weight = np.bincount(place, weight)
        target = np.bincount(place, weight * seen) / cell_weight
        variance = (1 / cell_weight + rules.car_table_sd_pct**2) / car_weight[cell_car]
        gram = design.T @ (design / variance[:, None]) + precision
        posterior = np.linalg.inv(gram)
        delta = posterior @ (design.T @ (target / variance) + precision @ mean)
        residual = target - design @ delta
        off = np.sqrt(
            np.bincount(cell_car, residual**2 / (1 / cell_weight + rules.car_table_sd_pct**2), n_cars)
            / np.maximum(np.bincount(cell_car, minlength=n_cars), 1)
        )
        car_weight = np.minimum(1.0, rules.learn_huber / np.maximum(off, 1e-6)) ** 2
        table = data.u + delta[left] * (1 - right) + delta[left + 1] * right
        gap, step = table - data.before, data.after - data.before
        noise = rules.soc_step_pct**2 / 12
        wild = np.abs(step) > np.abs(gap) + rules.learn_wild_pct  # not a step towards the table
        usable = np.where(wild, 0.0, 1.0)
        per_car = np.bincount(data.car, usable, n_cars)
        top = np.bincount(data.car, usable * gap * step, n_cars) - noise * per_car  # before's error is in both
        bottom = np.bincount(data.car, usable * gap**2, n_cars) - noise * per_car
        scale = 2 * noise / rules.anchor_share_sd**2
        shares = (np.maximum(top, 0) + rules.anchor_share_prior * scale) / (np.maximum(bottom, 0) + scale)
        shares = np.clip(shares, rules.anchor_share_min, 1.0)
    rms = float(np.sqrt(np.average(residual**2, weights=n_cell)))
    return delta, posterior, shares, rms


def _between(
    found: list[_CarBins], knots: Floats, mean: Floats, prior_cov: Floats, rules: BatteryRules
) -> tuple[Floats, Floats]:
    """Prior of a pack type from the other types of its chemistry: their mean table, and how far types lie apart."""
    apart = prior_cov * rules.sibling_share**2
    precision = np.linalg.inv(prior_cov + 1e-9 * np.eye(len(knots)))
    pull = precision @ mean
    for other in found:
        table, posterior, _, _ = _fit(other, knots, mean, prior_cov, rules)
        # what the rests said, without the prior that every fit began with, plus the distance between types
        said = np.linalg.inv(posterior) - np.linalg.inv(prior_cov + 1e-9 * np.eye(len(knots)))
        said = (said + said.T) / 2
        values, vectors = np.linalg.eigh(said)
        values = np.maximum(values, 0)
        root = vectors * np.sqrt(values)
        middle = np.linalg.inv(np.eye(len(knots)) + root.T @ apart @ root)
        weight = root @ middle @ root.T
        precision = precision + weight
        pull = pull + weight @ table
    cov = np.linalg.inv(precision)
    return cov @ pull, cov + apart


def _turned(
    knots: Floats, table: Floats, posterior: Floats, outside: Curve, rules: BatteryRules
) -> tuple[Floats, Floats]:
    """Voltage and error of SoC on ``SOC_PCT`` from the table over outside SoC: made monotone, then turned round."""
    fine, (outside_soc, outside_v) = _fine(rules), _led_on(outside, rules)
    soc = _monotone(fine + np.interp(fine, knots, table))
    soc = _rising(soc, 1e-3)
    u = np.interp(SOC_PCT, soc, fine)
    ocv = _rising(np.interp(u, outside_soc, outside_v), 1e-4)
    sd = np.interp(u, knots, np.sqrt(np.maximum(np.diag(posterior), 0)))
    return np.round(ocv, 4), sd


def _monotone(values: Floats) -> Floats:
    """Nearest rising values (pool adjacent violators)."""
    levels: list[list[float]] = []
    for value in values.tolist():
        levels.append([value, 1.0])
        while len(levels) > 1 and levels[-2][0] > levels[-1][0]:
            upper, weight = levels.pop()
            levels[-1] = [
                (levels[-1][0] * levels[-1][1] + upper * weight) / (levels[-1][1] + weight),
                levels[-1][1] + weight,
            ]
    return np.concatenate([np.full(int(weight), level) for level, weight in levels])


@dataclass(frozen=True)
class _Balance:
    """What coulombs between rests say about hysteresis and spread of the cars' curves."""

    hysteresis_v: float
    hysteresis_sd_v: float
    spread_v: float
    correlation_pct: float
    n: int
    rms_pct: float
    contradicting: float


@dataclass(frozen=True, eq=False)
class _Chain:
    """Successive rests of one car, n steps: SoC differences, coulombs by half year, effect of 1 V of hysteresis."""

    x: Floats
    y: Floats  # (n, half years)
    z: Floats
    random: Floats  # covariance of x but for the car's curve, points^2
    soc: Floats  # at the n + m rests
    slope_v: Floats
    steps: Floats  # (n, rests): which rests each step goes between
    others: int  # steps that contradicted the rest of the chain

    def curve(self, length_pct: float) -> Floats:
        """Covariance of x by 1 V of spread."""
        return np.asarray(
            self.steps
            @ (correlation(self.soc, self.soc, length_pct) / np.outer(self.slope_v, self.slope_v))
            @ self.steps.T
        )


_SPREADS_V = np.geomspace(0.001, 0.03, 18)
"""Spreads that are weighed against each other, V."""


def _coulombs(rests: pl.DataFrame, curve: Curve, rules: BatteryRules) -> _Balance:
    """Compare SoC differences of each car's successive rests with its coulombs, whose scale (its capacity) is its own.

    Per car x = y b + h z + e: x SoC differences by the curve without hysteresis, y coulombs with one b per half year
    (in which capacity hardly moves), z what 1 V of half gap does to x. e is random error and the car's own curve. Size
    and reach of the latter by restricted likelihood over all cars (b and h taken out), h by generalised least squares;
    a car that contradicts all others has a bounded say.
    """
    chains = _chains(rests, curve, rules)
    lengths = np.array(rules.curve_correlations_pct)
    about_spread = np.log(_SPREADS_V / rules.spread_prior_v) / rules.spread_prior_log_sd
    about_length = np.log(lengths / rules.curve_correlation_pct) / rules.curve_correlation_log_sd
    likelihood = -(about_length[:, None] ** 2 + about_spread[None, :] ** 2) / 2
    for chain in chains:
        own = np.vstack([_likelihood(chain, length) for length in lengths])
        likelihood = likelihood + np.maximum(own - own.max(), -rules.learn_car_say)
    odds = np.exp(likelihood - likelihood.max())
    odds /= odds.sum()
    length = float(np.exp((odds.sum(axis=1) * np.log(lengths)).sum()))
    spread = float(np.sqrt((odds.sum(axis=0) * _SPREADS_V**2).sum()))
    h, h_sd = _hysteresis(chains, spread, length, rules)
    steps = [chain.x - h * chain.z for chain in chains]
    off = [s - c.y @ np.linalg.lstsq(c.y, s, rcond=None)[0] for s, c in zip(steps, chains, strict=True)]
    n = sum(len(chain.x) for chain in chains)
    others = sum(chain.others for chain in chains)
    return _Balance(
        hysteresis_v=h,
        hysteresis_sd_v=h_sd,
        spread_v=spread,
        correlation_pct=length,
        n=n,
        rms_pct=float(np.sqrt(sum(float(o @ o) for o in off) / n)) if n else 0.0,
        contradicting=others / (n + others) if n else 0.0,
    )


def _likelihood(chain: _Chain, length_pct: float) -> Floats:
    """Restricted log likelihood of every spread for one car, its capacity and hysteresis taken out."""
    root = np.linalg.inv(np.linalg.cholesky(chain.random))
    fixed = root @ np.column_stack([chain.y, chain.z])
    basis = np.linalg.qr(fixed, mode="complete")[0][:, fixed.shape[1] :].T @ root
    values, vectors = np.linalg.eigh(basis @ chain.curve(length_pct) @ basis.T)
    left = vectors.T @ (basis @ chain.x)
    total = 1 + _SPREADS_V[:, None] ** 2 * np.maximum(values, 0)[None, :]
    return np.asarray(-(np.log(total) + left[None, :] ** 2 / total).sum(axis=1) / 2)


def _hysteresis(chains: list[_Chain], spread_v: float, length_pct: float, rules: BatteryRules) -> tuple[float, float]:
    """Half gap of the type and how far one car's may be off it, V."""
    found, found_var = [], []
    for chain in chains:
        inverse = np.linalg.inv(chain.random + spread_v**2 * chain.curve(length_pct))
        seen = inverse @ chain.y
        project = inverse - seen @ np.linalg.solve(chain.y.T @ seen, seen.T)
        knows = max(float(chain.z @ project @ chain.z), 1e-9)
        found.append(float(chain.z @ project @ chain.x) / knows)
        found_var.append(1 / knows)
    value, var = np.array(found), np.array(found_var)
    h = rules.hysteresis_prior_v
    between = (rules.hysteresis_car_share * h) ** 2
    bottom = 1 / rules.hysteresis_prior_sd_v**2
    for _ in range(10):
        robust = np.minimum(1.0, rules.learn_huber * np.sqrt(var + between) / np.maximum(np.abs(value - h), 1e-9)) ** 2
        weight = robust / (var + between)
        bottom = 1 / rules.hysteresis_prior_sd_v**2 + float(weight.sum())
        h = (rules.hysteresis_prior_v / rules.hysteresis_prior_sd_v**2 + float((weight * value).sum())) / bottom
        h = float(np.clip(h, 0.0, 0.05))
        # spread between cars: what their scatter shows beyond its error, with the prior as so many cars
        tells = between / (var + between)
        excess = np.clip((value - h) ** 2 * robust - var, -var, (3 * rules.hysteresis_car_share * h) ** 2)
        prior = (rules.hysteresis_car_share * h) ** 2
        between = (prior * rules.spread_prior_cars + float((tells * excess).sum())) / (
            rules.spread_prior_cars + float(tells.sum())
        )
        between = max(between, (0.05 * h) ** 2, 1e-10)
    return h, float(np.sqrt(1 / bottom + between))


def _chains(rests: pl.DataFrame, curve: Curve, rules: BatteryRules) -> list[_Chain]:
    """The last rests of every car and epoch whose SoC is identifiable, direction and charge known."""
    plain = replace(curve, hysteresis_v=0.0, hysteresis_sd_v=0.0)
    chains: list[_Chain] = []
    for _, whole in rests.sort("device_no", "rest_at").group_by("device_no", "epoch", maintain_order=True):
        known = (
            (direction_number(whole) != 0)
            & whole["charged_total_ah"].is_not_null().to_numpy()
            & whole["discharged_total_ah"].is_not_null().to_numpy()
            & soc_from_rest(whole["cell_v"].to_numpy(), np.zeros(whole.height), plain, rules).is_identifiable
        )
        block = whole.filter(pl.Series(known)).tail(rules.learn_max_rests)
        if block.height < rules.learn_min_rests:
            continue
        chain = _chain(block, plain, rules)
        if chain is not None:
            chains.append(chain)
    return chains


def _chain(block: pl.DataFrame, plain: Curve, rules: BatteryRules) -> _Chain | None:
    way = direction_number(block)
    read = soc_from_rest(block["cell_v"].to_numpy(), np.zeros(block.height), plain, rules)
    counted = (block["charged_total_ah"] - block["discharged_total_ah"]).to_numpy()
    at_h = block["rest_at"].dt.epoch("us").to_numpy() / 3.6e9
    awake = block["awake_h"].to_numpy()
    slope_v = np.interp(read.soc_pct, SOC_PCT, np.maximum(plain.slope_mv_per_pct, 1.0) / 1000)
    n = block.height
    near = np.diff(at_h) <= rules.pair_max_days * 24
    steps = (np.eye(n)[1:] - np.eye(n)[:-1])[near]
    x, charge, z = steps @ read.soc_pct, steps @ counted, steps @ (way / slope_v)
    moves = np.abs(charge) > 10 * rules.counter_step_ah
    if moves.sum() < rules.learn_min_rests // 2:
        return None
    scale = float(np.median(x[moves] / charge[moves]))
    off = np.abs(x - scale * charge)
    usual = max(float(np.median(off)) * 1.4826, rules.learn_contradict_min_pct)
    good = off <= rules.learn_contradict_sd * usual
    steps, x, charge, z = steps[good], x[good], charge[good], z[good]
    if len(x) < rules.learn_min_rests // 2 or scale <= 0:
        return None
    later = block["rest_at"].to_numpy()[np.argmax(steps, axis=1)]
    half = (later.astype("datetime64[M]").astype(np.int64)) // 6
    y = charge[:, None] * (half[:, None] == np.unique(half)[None, :])
    y = y[:, np.abs(y).sum(axis=0) > 0]
    offset = scale * rules.current_offset_sd_a * (steps @ awake)
    parked = scale * rules.parked_sd_a * np.maximum(steps @ at_h - steps @ awake, 0)
    random = steps @ np.diag(read.sd_random_pct**2 + (scale * rules.counter_step_ah) ** 2 / 6) @ steps.T
    random = random + np.outer(offset, offset) + np.outer(parked, parked)
    return _Chain(x, y, z, random, read.soc_pct, slope_v, steps, int((~good).sum()))
