{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device, mode, SoC band and temperature band: the power it charged with, over the sessions that passed
-- through. A pass is one session in one band, with the mean power of its messages there; the quantiles are over passes,
-- so that a slow session weighs no more than a fast one. Stitched.
with

charge_band as (
    select * from {{ ref('int_charge_band') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

sessions as (
    select
        session_id,
        started_at,
        ended_at,
        mode,
        device_no
    from {{ ref('fct_charging_session') }}
    where {{ devices_in_scope() }} and mode in ('AC', 'DC') and not is_inferred
),

passes as (
    select
        sessions.mode,
        charge_band.soc_band_pct,
        charge_band.temp_band_c,
        {{ fixed_sum('charge_band.power_sum_kw') }} / sum(charge_band.message_count) as power_kw,
        {{ fixed_sum('charge_band.current_sum_a') }} / sum(charge_band.message_count) as current_a,
        max(charge_band.power_max_kw) as power_max_kw,
        sum(charge_band.message_count) as message_count,
        min(charge_band.from_at) as from_at,
        sessions.device_no
    from charge_band
    inner join sessions
        on
            charge_band.device_no = sessions.device_no
            and charge_band.to_at >= sessions.started_at and charge_band.from_at <= sessions.ended_at
    group by
        sessions.device_no, sessions.session_id, sessions.mode, charge_band.soc_band_pct, charge_band.temp_band_c
    having sum(charge_band.message_count) >= {{ var('charge_pass_min_n') }}
)

select
    mode,
    {{ band_name('soc_band_pct', 'soc_band_pct + ' ~ var('soc_band_pct')) }} as soc_band,
    {{ band_name('temp_band_c', 'temp_band_c + ' ~ var('temperature_band_c')) }} as temperature_band,
    soc_band_pct as soc_from_pct,
    temp_band_c as temperature_from_c,
    percentile_cont(0.5) within group (order by power_kw) as power_p50_kw,
    percentile_cont(0.9) within group (order by power_kw) as power_p90_kw,
    max(power_max_kw) as power_max_kw,
    percentile_cont(0.5) within group (order by current_a) as current_p50_a,
    count(*) as n,
    cast(sum(message_count) as bigint) as message_count,
    min(from_at) as first_at,
    max(from_at) as last_at,
    device_no
from passes
group by device_no, mode, soc_band_pct, temp_band_c
