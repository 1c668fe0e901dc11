{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per device, month, temperature band and SoC band: sums over current steps, from which the resistance and its
-- standard error follow for any set of bands and months, and the vendor's own power limits. A step is two messages at
-- most {{ var('power_step_max_s') }} s apart whose currents differ by at least {{ var('power_step_min_a') }} A. Local.
-- Drift of the open-circuit voltage over a pair falls out of the sum over many: it goes with the mean current of the
-- pair, and the sum of (step x mean current) is a telescoping one. Polling skew makes the resistance too low, the same
-- way for every car sampled alike: see step_s.
with

messages as (
    select
        recorded_at,
        case when not is_current_suspect then pack_current_a end as current_a,
        case when not is_pack_voltage_suspect then pack_voltage_v end as voltage_v,
        {{ band_of('case when not is_temperature_suspect then pack_temp_c end', var('temperature_band_c')) }}
            as temp_band_c,
        {{ soc_band_of('soc_pct', var('power_soc_band_pct')) }} as soc_band_pct,
        charge_power_limit_kw,
        discharge_power_limit_kw,
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
),

paired as (
    select
        *,
        {{ seconds_between('lag(recorded_at) over w', 'recorded_at') }} as interval_s,
        current_a - lag(current_a) over w as current_step_a,
        voltage_v - lag(voltage_v) over w as voltage_step_v
    from messages
    window w as ({{ in_time_order() }})
),

-- a voltage that does not follow a step of the current at all is the value of the message before, delivered again
stepped as (
    select
        *,
        coalesce(
            interval_s <= {{ var('power_step_max_s') }} and abs(current_step_a) >= {{ var('power_step_min_a') }}
            and voltage_step_v is not null,
            false
        ) as is_step,
        coalesce(voltage_step_v = 0, false) as is_stale
    from paired
),

summed as (
    select
        temp_band_c,
        soc_band_pct,
        count(*) as message_count,
        count(*) filter (where is_step and not is_stale) as step_count,
        count(*) filter (where is_step and is_stale) as stale_count,
        cast(sum({{ fixed('current_step_a * current_step_a') }}) filter (where is_step and not is_stale) as double)
            as step_square_a2,
        cast(sum({{ fixed('current_step_a * voltage_step_v') }}) filter (where is_step and not is_stale) as double)
            as step_product_va,
        cast(sum({{ fixed('voltage_step_v * voltage_step_v') }}) filter (where is_step and not is_stale) as double)
            as step_square_v2,
        cast(sum({{ fixed('interval_s') }}) filter (where is_step and not is_stale) as double) as step_s,
        percentile_cont(0.9) within group (order by charge_power_limit_kw) as charge_limit_p90_kw,
        percentile_cont(0.9) within group (order by discharge_power_limit_kw) as discharge_limit_p90_kw,
        max(charge_power_limit_kw) as charge_limit_max_kw,
        max(discharge_power_limit_kw) as discharge_limit_max_kw,
        device_no,
        measured_month
    from stepped
    group by device_no, measured_month, temp_band_c, soc_band_pct
)

select
    temp_band_c,
    soc_band_pct,
    message_count,
    step_count,
    stale_count,
    coalesce(step_square_a2, 0e0) as step_square_a2,
    coalesce(step_product_va, 0e0) as step_product_va,
    coalesce(step_square_v2, 0e0) as step_square_v2,
    coalesce(step_s, 0e0) as step_s,
    -- a limit that is 0 all month is a channel that this car does not support, not a pack without power
    case
        when max(charge_limit_max_kw) over (partition by device_no, measured_month) > 0 then charge_limit_p90_kw
    end as acceptable_charge_p90_kw,
    case
        when max(discharge_limit_max_kw) over (partition by device_no, measured_month) > 0 then discharge_limit_p90_kw
    end as acceptable_discharge_p90_kw,
    device_no,
    measured_month
from summed
