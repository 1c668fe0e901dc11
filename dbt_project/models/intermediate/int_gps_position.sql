{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per position of a device: the first of consecutive fixes at the same place (receivers hold their last
-- position between updates), with the step from the position before, in the same partition.
with

-- the last fix stays too, so that the end of the track is known
positions as (
    select * from {{ ref('int_fix_pair') }}
    where lat_before is null or lat <> lat_before or lng <> lng_before or is_last
),

stepped as (
    select
        *,
        lag(recorded_at) over w as position_before_at,
        {{ seconds_between('lag(recorded_at) over w', 'recorded_at') }} as since_position_s,
        {{ haversine_km('lat_before', 'lng_before', 'lat', 'lng') }} as chord_km
    from positions
    window w as ({{ in_time_order() }})
),

judged as (
    select
        *,
        coalesce(
            chord_km
            > {{ var('gps_max_kmh') }} * least(since_position_s, silent_s + {{ var('gps_hold_s') }}) / 3600
            + {{ var('gps_step_slack_km') }},
            false
        ) as is_jump
    from stepped
)

select
    recorded_at,
    lat,
    lng,
    fix_before_at,
    lat_before,
    lng_before,
    position_before_at,
    chord_km,
    silent_s,
    is_jump,
    case
        when is_jump then 0e0
        when
            speed_kmh < {{ var('gps_standing_kmh') }} and speed_before_kmh < {{ var('gps_standing_kmh') }}
            and chord_km < {{ var('gps_standing_km') }}
            then 0e0
        else coalesce(chord_km, 0e0)
    end as step_km,
    device_no,
    measured_month
from judged
