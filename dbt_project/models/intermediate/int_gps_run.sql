{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per run of GPS positions: consecutive positions of one KST day without a step that no car could drive and
-- without a long silence. Local; which runs are glitches of the receiver, and what lies between two runs, is decided
-- by the stitching over the device's whole history.
with

positions as (
    select
        *,
        coalesce(
            is_jump or silent_s > {{ var('gps_run_split_s') }} or service_date <> service_date_before,
            true
        ) as is_start
    from {{ ref('int_gps_position') }}
),

numbered as (
    select
        *,
        sum(case when is_start then 1 else 0 end) over ({{ in_time_order('position_no') }}) as run_no
    from positions
),

runs as (
    select
        run_no,
        service_date,
        max(case when is_start and is_jump then 1 else 0 end) = 1 as is_after_jump,
        max(case when is_start and is_jump then chord_km end) as jump_km,
        min(first_at) as from_at,
        max(last_at) as to_at,
        min_by(lat, position_no) as from_lat,
        min_by(lng, position_no) as from_lng,
        max_by(lat, position_no) as to_lat,
        max_by(lng, position_no) as to_lng,
        max_by({{ seconds_between('first_at', 'last_at') }}, position_no) as to_held_s,
        sum(fix_count) as fix_count,
        count(*) as position_count,
        coalesce(sum(step_km) filter (where not is_start and silent_s <= {{ var('gps_bridge_s') }}), 0e0) as km,
        coalesce(sum(step_km) filter (where not is_start and silent_s > {{ var('gps_bridge_s') }}), 0e0) as bridged_km,
        device_no,
        measured_month
    from numbered
    group by all
)

select
    cast(run_no as bigint) as run_no,
    service_date,
    is_after_jump,
    jump_km,
    from_at,
    to_at,
    from_lat,
    from_lng,
    to_lat,
    to_lng,
    to_held_s,
    cast(fix_count as bigint) as fix_count,
    position_count,
    km,
    bridged_km,
    device_no,
    measured_month
from runs
