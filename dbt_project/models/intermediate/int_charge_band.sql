{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per slot of {{ var('charge_band_slot_s') }} s, SoC band and temperature band in which a standing car took
-- current: what it took. Which of it belongs to a session, and how that session charged, is decided by the stitching;
-- a slot is short enough to lie in one session. Local.
with

messages as (
    select
        recorded_at,
        pack_current_a as current_a,
        pack_voltage_v * pack_current_a / 1000 as power_kw,
        {{ soc_band_of('soc_pct', var('soc_band_pct')) }} as soc_band_pct,
        {{ band_of('case when not is_temperature_suspect then pack_temp_c end', var('temperature_band_c')) }}
            as temp_band_c,
        {{ time_slot('recorded_at', var('charge_band_slot_s')) }} as slot,
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
    where
        pack_current_a > {{ var('charge_current_min_a') }}
        and not is_current_suspect
        and not is_pack_voltage_suspect
        and pack_voltage_v is not null
        and soc_pct is not null
        and coalesce(speed_kmh, 0) < {{ var('moving_min_kmh') }}
)

select
    slot,
    soc_band_pct,
    temp_band_c,
    min(recorded_at) as from_at,
    max(recorded_at) as to_at,
    count(*) as message_count,
    {{ fixed_sum('power_kw') }} as power_sum_kw,
    {{ fixed_sum('current_a') }} as current_sum_a,
    max(power_kw) as power_max_kw,
    device_no,
    measured_month
from messages
group by device_no, measured_month, slot, soc_band_pct, temp_band_c
