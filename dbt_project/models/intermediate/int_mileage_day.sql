{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per device and KST day with rows: what speed and logging say about the day, with its first and last message
-- as edges. The pair of messages over midnight belongs to neither day here; the stitching adds it.
with

pairs as (
    select
        *,
        {{ time_slot('recorded_at', var('gps_bridge_s')) }} as slot
    from {{ ref('int_message_pair') }}
),

-- short slots of time say whether speed and position saw the same kilometres
fix_slot as (
    select
        {{ time_slot('recorded_at', var('gps_bridge_s')) }} as slot,
        coalesce({{ fixed_sum('speed_step_km') }}, 0e0) as gps_speed_km,
        device_no,
        measured_month
    from {{ ref('int_fix_pair') }}
    group by all
),

bms_slot as (
    select
        service_date,
        slot,
        count(*) as message_count,
        coalesce({{ fixed_sum('speed_step_km', where='service_date = date_before') }}, 0e0) as speed_km,
        bool_or(is_gap) as has_gap,
        device_no,
        measured_month
    from pairs
    group by device_no, measured_month, service_date, slot
),

seen_slot as (
    select
        bms_slot.service_date,
        {{ fixed_sum('bms_slot.speed_km') }} as speed_seen_by_gps_km,
        {{ fixed_sum('bms_slot.speed_km', where='not bms_slot.has_gap') }} as paired_speed_km,
        {{ fixed_sum('fix_slot.gps_speed_km', where='not bms_slot.has_gap') }} as paired_gps_speed_km,
        bms_slot.device_no,
        bms_slot.measured_month
    from bms_slot
    inner join fix_slot
        on
            bms_slot.device_no = fix_slot.device_no and bms_slot.measured_month = fix_slot.measured_month
            and bms_slot.slot = fix_slot.slot
    group by bms_slot.device_no, bms_slot.measured_month, bms_slot.service_date
),

bms_day as (
    select
        service_date,
        min(recorded_at) as first_at,
        max(recorded_at) as last_at,
        count(*) as message_count,
        count(odometer_km) as reading_count,
        count(*) filter (where is_odometer_zero) as odometer_zero_count,
        count(*) filter (where odometer_km is null and not is_odometer_zero) as odometer_missing_count,
        count(speed_kmh) as speed_count,
        coalesce({{ fixed_sum('speed_step_km', where='service_date = date_before') }}, 0e0) as speed_km,
        coalesce({{ fixed_sum('interval_s', where='not is_gap and service_date = date_before') }}, 0e0) as logged_s,
        coalesce({{ fixed_sum('interval_s', where='is_gap and service_date = date_before') }}, 0e0) as silent_s,
        median(interval_s) filter (where not is_gap) as interval_median_s,
        min_by(speed_kmh, recorded_at) filter (where speed_kmh is not null) as first_speed_kmh,
        max_by(speed_kmh, recorded_at) filter (where speed_kmh is not null) as last_speed_kmh,
        device_no,
        measured_month
    from pairs
    group by device_no, measured_month, service_date
),

soc_day as (
    select
        {{ kst_day('recorded_at') }} as service_date,
        min_by(soc_pct, recorded_at) as soc_first_pct,
        max_by(soc_pct, recorded_at) as soc_last_pct,
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
    where soc_pct is not null
    group by all
),

gps_day as (
    select
        {{ kst_day('recorded_at') }} as service_date,
        count(*) as gps_message_count,
        min_by(fuel_pct, recorded_at) filter (where fuel_pct is not null) as fuel_first_pct,
        max_by(fuel_pct, recorded_at) filter (where fuel_pct is not null) as fuel_last_pct,
        device_no,
        measured_month
    from {{ ref('stg_gps') }}
    group by all
),

fix_day as (
    select
        {{ kst_day('recorded_at') }} as service_date,
        count(*) as fix_count,
        coalesce({{ fixed_sum('speed_step_km', where=kst_day('fix_before_at') ~ ' = ' ~ kst_day('recorded_at')) }}, 0e0)
            as gps_speed_km,
        median(silent_s) filter (where silent_s <= {{ var('gps_bridge_s') }}) as fix_interval_median_s,
        device_no,
        measured_month
    from {{ ref('int_fix_pair') }}
    group by all
),

days as (
    select
        service_date,
        device_no,
        measured_month
    from bms_day
    union
    select
        service_date,
        device_no,
        measured_month
    from gps_day
)

select
    days.service_date,
    bms_day.first_at,
    bms_day.last_at,
    coalesce(bms_day.message_count, 0) as message_count,
    coalesce(bms_day.reading_count, 0) as reading_count,
    coalesce(bms_day.odometer_zero_count, 0) as odometer_zero_count,
    coalesce(bms_day.odometer_missing_count, 0) as odometer_missing_count,
    coalesce(bms_day.speed_count, 0) as speed_count,
    coalesce(bms_day.speed_km, 0e0) as speed_km,
    coalesce(seen_slot.speed_seen_by_gps_km, 0e0) as speed_seen_by_gps_km,
    coalesce(seen_slot.paired_speed_km, 0e0) as paired_speed_km,
    coalesce(seen_slot.paired_gps_speed_km, 0e0) as paired_gps_speed_km,
    coalesce(bms_day.logged_s, 0e0) as logged_s,
    coalesce(bms_day.silent_s, 0e0) as silent_s,
    bms_day.interval_median_s,
    bms_day.first_speed_kmh,
    bms_day.last_speed_kmh,
    soc_day.soc_first_pct,
    soc_day.soc_last_pct,
    coalesce(gps_day.gps_message_count, 0) as gps_message_count,
    coalesce(fix_day.fix_count, 0) as fix_count,
    fix_day.fix_interval_median_s,
    coalesce(fix_day.gps_speed_km, 0e0) as gps_speed_km,
    gps_day.fuel_first_pct,
    gps_day.fuel_last_pct,
    days.device_no,
    days.measured_month
from days
left join bms_day
    on
        days.service_date = bms_day.service_date
        and days.device_no = bms_day.device_no and days.measured_month = bms_day.measured_month
left join seen_slot
    on
        days.service_date = seen_slot.service_date
        and days.device_no = seen_slot.device_no and days.measured_month = seen_slot.measured_month
left join soc_day
    on
        days.service_date = soc_day.service_date
        and days.device_no = soc_day.device_no and days.measured_month = soc_day.measured_month
left join gps_day
    on
        days.service_date = gps_day.service_date
        and days.device_no = gps_day.device_no and days.measured_month = gps_day.measured_month
left join fix_day
    on
        days.service_date = fix_day.service_date
        and days.device_no = fix_day.device_no and days.measured_month = fix_day.measured_month
