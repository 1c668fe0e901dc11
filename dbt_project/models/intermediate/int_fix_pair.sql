{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per GPS fix that is neither without value nor suspect, beside the fix before it in the same partition, and
-- the kilometres that their two speeds give: the receiver measures speed by itself, and knows what chords cut off.
with

fixes as (
    select
        recorded_at,
        lat,
        lng,
        case when not is_speed_suspect then speed_kmh end as speed_kmh,
        device_no,
        measured_month
    from {{ ref('stg_gps') }}
    where lat is not null and lng is not null and not is_hdop_suspect
),

paired as (
    select
        *,
        lag(recorded_at) over w as fix_before_at,
        lag(lat) over w as lat_before,
        lag(lng) over w as lng_before,
        lag(speed_kmh) over w as speed_before_kmh,
        lead(recorded_at) over w is null as is_last
    from fixes
    window w as ({{ in_time_order() }})
),

timed as (
    select
        *,
        {{ seconds_between('fix_before_at', 'recorded_at') }} as silent_s
    from paired
)

select
    recorded_at,
    lat,
    lng,
    speed_kmh,
    fix_before_at,
    lat_before,
    lng_before,
    speed_before_kmh,
    silent_s,
    case
        when silent_s <= {{ var('gps_bridge_s') }} then (speed_kmh + speed_before_kmh) / 2 * silent_s / 3600
    end as speed_step_km,
    is_last,
    device_no,
    measured_month
from timed
