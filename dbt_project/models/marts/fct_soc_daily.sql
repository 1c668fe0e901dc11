{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device and KST day, from its first awake day to its last one: the state of charge, logged and in
-- silences, where it runs in a straight line between the readings on both sides. Days of a longer silence are rows
-- without figures. Stitched.
with

band_hours as (
    select * from {{ ref('int_band_hours') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }} and kind = 'soc'
),

silence_day as (
    select * from {{ ref('int_silence_day') }}
),

silent_parts as (
    select
        *,
        least(soc_from_pct, soc_to_pct) as soc_low_pct,
        greatest(soc_from_pct, soc_to_pct) as soc_high_pct
    from silence_day
),

parts as (
    select
        service_date,
        hours as part_h,
        hours as logged_h,
        case when band_from is not null then hours else 0e0 end as known_h,
        soc_h_pct,
        soc_min_pct,
        soc_max_pct,
        soc_last_at,
        soc_last_pct,
        case when band_from >= {{ var('high_soc_pct') }} then hours else 0e0 end as high_soc_h,
        case when band_from < {{ var('low_soc_pct') }} then hours else 0e0 end as low_soc_h,
        device_no
    from band_hours
    union all
    select
        service_date,
        part_h,
        0e0 as logged_h,
        case when soc_from_pct is not null then part_h else 0e0 end as known_h,
        (soc_from_pct + soc_to_pct) / 2 * part_h as soc_h_pct,
        soc_low_pct as soc_min_pct,
        soc_high_pct as soc_max_pct,
        case when soc_to_pct is not null then part_to_at end as soc_last_at,
        soc_to_pct as soc_last_pct,
        part_h * case
            when soc_low_pct >= {{ var('high_soc_pct') }} then 1e0
            when soc_high_pct > {{ var('high_soc_pct') }}
                then (soc_high_pct - {{ var('high_soc_pct') }}) / nullif(soc_high_pct - soc_low_pct, 0)
            else 0e0
        end as high_soc_h,
        part_h * case
            when soc_high_pct < {{ var('low_soc_pct') }} then 1e0
            when soc_low_pct < {{ var('low_soc_pct') }}
                then ({{ var('low_soc_pct') }} - soc_low_pct) / nullif(soc_high_pct - soc_low_pct, 0)
            else 0e0
        end as low_soc_h,
        device_no
    from silent_parts
),

days as (
    select
        service_date,
        {{ fixed_sum('part_h') }} as span_h,
        {{ fixed_sum('logged_h') }} as logged_h,
        {{ fixed_sum('known_h') }} as known_h,
        {{ fixed_sum('soc_h_pct') }} as soc_h_pct,
        min(soc_min_pct) as soc_min_pct,
        max(soc_max_pct) as soc_max_pct,
        max_by(soc_last_pct, soc_last_at) filter (where soc_last_at is not null) as soc_end_pct,
        {{ fixed_sum('high_soc_h') }} as high_soc_h,
        {{ fixed_sum('low_soc_h') }} as low_soc_h,
        device_no
    from parts
    group by device_no, service_date
)

select
    service_date,
    soc_min_pct,
    soc_max_pct,
    least(greatest(soc_h_pct / nullif(known_h, 0), soc_min_pct), soc_max_pct) as soc_mean_pct,
    soc_end_pct,
    case when known_h > 0 then high_soc_h end as high_soc_h,
    case when known_h > 0 then low_soc_h end as low_soc_h,
    logged_h,
    span_h - logged_h as silent_h,
    span_h - known_h as unknown_h,
    device_no,
    {{ month_of('service_date') }} as measured_month
from days
