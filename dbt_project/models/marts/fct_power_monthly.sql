{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device, month, temperature band and SoC band: internal resistance of the pack from current steps, and the
-- power the BMS allowed. Stitched.
with

power_step as (
    select * from {{ ref('int_power_step') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

-- regression through the origin: voltage step = resistance x current step
fitted as (
    select
        *,
        case when step_count >= {{ var('power_step_min_n') }} then step_product_va / nullif(step_square_a2, 0) end
            as resistance_ohm
    from power_step
),

erred as (
    select
        *,
        sqrt(
            greatest(step_square_v2 - resistance_ohm * step_product_va, 0e0)
            / nullif(step_count - 1, 0) / nullif(step_square_a2, 0)
            + power({{ var('current_gain_sd') }} * resistance_ohm, 2)
        ) as se_ohm
    from fitted
)

select
    {{ band_name('temp_band_c', 'temp_band_c + ' ~ var('temperature_band_c')) }} as temperature_band,
    {{ band_name('soc_band_pct', 'soc_band_pct + ' ~ var('power_soc_band_pct')) }} as soc_band,
    temp_band_c as temperature_from_c,
    soc_band_pct as soc_from_pct,
    case when resistance_ohm > 0 then 1000 * resistance_ohm end as resistance_mohm,
    case when resistance_ohm > 0 then greatest(1000 * (resistance_ohm - {{ var('interval_z') }} * se_ohm), 0e0) end
        as resistance_lo_mohm,
    case when resistance_ohm > 0 then 1000 * (resistance_ohm + {{ var('interval_z') }} * se_ohm) end
        as resistance_hi_mohm,
    step_count as n,
    case when step_count > 0 then step_s / step_count end as step_mean_s,
    case
        when step_count = 0 and stale_count = 0 then 'no current steps: sampled too slowly, or a steady current'
        when step_count < {{ var('power_step_min_n') }} then 'too few current steps'
        when coalesce(resistance_ohm, 0e0) <= 0 then 'voltage does not follow the current'
    end as resistance_missing_because,
    acceptable_charge_p90_kw,
    acceptable_discharge_p90_kw,
    message_count,
    device_no,
    measured_month
from erred
