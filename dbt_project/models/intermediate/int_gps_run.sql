{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per run of GPS positions: at most some minutes of one KST day without a step that no car could drive and
-- without a silence. Local; which runs are glitches of the receiver, and what lies between two runs, is decided by
-- the stitching over the device's whole history. A run that goes on from the one before begins where that one ended.
with

positions as (
    select
        *,
        {{ kst_day('recorded_at') }} as service_date,
        {{ kst_day('fix_before_at') }} as date_before,
        {{ time_slot('recorded_at', var('gps_run_s')) }} as slot,
        {{ time_slot('position_before_at', var('gps_run_s')) }} as slot_before
    from {{ ref('int_gps_position') }}
),

cut as (
    select
        *,
        coalesce(is_jump or silent_s > {{ var('gps_bridge_s') }} or service_date <> date_before, true) as is_start,
        coalesce(slot <> slot_before, true) as is_new_slot
    from positions
),

numbered as (
    select
        *,
        sum(case when is_start or is_new_slot then 1 else 0 end) over ({{ in_time_order() }}) as run_no
    from cut
)

select
    cast(run_no as bigint) as run_no,
    min(service_date) as service_date,
    bool_or(is_start and is_jump) as is_after_jump,
    max(case when is_start and is_jump then chord_km end) as jump_km,
    min(case when is_start then recorded_at else fix_before_at end) as from_at,
    max(recorded_at) as to_at,
    min_by(case when is_start then lat else lat_before end, recorded_at) as from_lat,
    min_by(case when is_start then lng else lng_before end, recorded_at) as from_lng,
    max_by(lat, recorded_at) as to_lat,
    max_by(lng, recorded_at) as to_lng,
    count(*) as position_count,
    coalesce({{ fixed_sum('step_km', where='not is_start') }}, 0e0) as km,
    device_no,
    measured_month
from numbered
group by device_no, measured_month, run_no
