{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per position of a device: consecutive fixes at the same place of one KST day are one position with the time
-- it was first and last reported (receivers hold their last position between updates). With the step from the position
-- before, in the same partition.
with

fixes as (
    select
        recorded_at,
        lat,
        lng,
        case when not is_speed_suspect then speed_kmh end as speed_kmh,
        {{ kst_day('recorded_at') }} as service_date,
        device_no,
        measured_month
    from {{ ref('stg_gps') }}
    where lat is not null and lng is not null and not is_hdop_suspect
),

compared as (
    select
        *,
        coalesce(
            lat = lag(lat) over w and lng = lag(lng) over w and service_date = lag(service_date) over w,
            false
        ) as is_held
    from fixes
    window w as ({{ in_time_order() }})
),

numbered as (
    select
        *,
        sum(case when is_held then 0 else 1 end) over ({{ in_time_order() }}) as position_no
    from compared
),

positions as (
    select
        service_date,
        position_no,
        min(recorded_at) as first_at,
        max(recorded_at) as last_at,
        min(lat) as lat,
        min(lng) as lng,
        max(speed_kmh) as speed_kmh,
        count(*) as fix_count,
        device_no,
        measured_month
    from numbered
    group by all
),

stepped as (
    select
        *,
        lag(service_date) over w as service_date_before,
        lag(last_at) over w as last_at_before,
        {{ haversine_km('lag(lat) over w', 'lag(lng) over w', 'lat', 'lng') }} as chord_km,
        {{ seconds_between('lag(last_at) over w', 'first_at') }} as silent_s,
        least(
            {{ seconds_between('lag(first_at) over w', 'first_at') }},
            {{ seconds_between('lag(last_at) over w', 'first_at') }} + {{ var('gps_hold_s') }}
        ) as step_s,
        speed_kmh < {{ var('gps_standing_kmh') }}
        and lag(speed_kmh) over w < {{ var('gps_standing_kmh') }} as is_standing
    from positions
    window w as ({{ in_time_order('position_no') }})
)

select
    service_date,
    position_no,
    first_at,
    last_at,
    lat,
    lng,
    speed_kmh,
    fix_count,
    service_date_before,
    last_at_before,
    chord_km,
    silent_s,
    coalesce(
        chord_km > {{ var('gps_max_kmh') }} * step_s / 3600 + {{ var('gps_step_slack_km') }},
        false
    ) as is_jump,
    case
        when chord_km > {{ var('gps_max_kmh') }} * step_s / 3600 + {{ var('gps_step_slack_km') }} then 0e0
        when is_standing and chord_km < {{ var('gps_standing_km') }} then 0e0
        else coalesce(chord_km, 0e0)
    end as step_km,
    device_no,
    measured_month
from stepped
