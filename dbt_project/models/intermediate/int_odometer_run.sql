{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per monotone run of the odometer, and per stretch of zeros between two readings. A run is consecutive valid
-- readings of one KST day without a fall, without a step that no car drives, without a step that neither speed nor
-- time explains, without a logging gap, and without a standstill that a witness contradicts. Local: what a cut means
-- (glitch, rollback, gap, freeze) is decided by the stitching, over the device's whole history; a cut alone costs nothing.
with

motion as (
    select * from {{ ref('int_motion') }}
),

readings as (
    select * from motion
    where odometer_km is not null
),

resolution as (
    select
        -- an odometer that never shows a fraction counts whole kilometres
        case when bool_or(odometer_km <> floor(odometer_km)) then 0.1e0 else 1e0 end as resolution_km,
        device_no,
        measured_month
    from readings
    group by all
),

month_edge as (
    select
        max(speed_sum_km) as speed_sum_km,
        max(gps_sum_km) as gps_sum_km,
        max(silent_sum_s) as silent_sum_s,
        max(reading_no) as reading_no,
        device_no,
        measured_month
    from motion
    group by all
),

stepped as (
    select
        *,
        odometer_km - lag(odometer_km) over w as step_km,
        {{ seconds_between('lag(recorded_at) over w', 'recorded_at') }} as step_s,
        coalesce(speed_sum_km - lag(speed_sum_km) over w, speed_sum_km) as step_speed_km,
        coalesce(gps_sum_km - lag(gps_sum_km) over w, gps_sum_km) as step_gps_km,
        coalesce(silent_sum_s - lag(silent_sum_s) over w, silent_sum_s) as step_silent_s,
        lag(service_date) over w as service_date_before,
        lag(speed_sum_km) over w as speed_sum_before_km,
        lag(gps_sum_km) over w as gps_sum_before_km,
        speed_kmh is not null and lag(speed_kmh) over w is not null as has_speed
    from readings
    window w as ({{ in_time_order('reading_no') }})
),

cut as (
    select
        stepped.*,
        case
            when step_km is null then 'start'
            when step_km < 0 then 'fall'
            when step_km > {{ var('odometer_max_kmh') }} * step_s / 3600 + {{ var('odometer_slack_km') }} then 'jump'
            when step_silent_s > 0 then 'gap'
            when
                has_speed
                and step_km > greatest(
                    {{ var('witness_gain') }} * step_speed_km,
                    step_speed_km + {{ var('witness_slack_kmh') }} * step_s / 3600
                ) + 1.05 * resolution_km
                then 'undriven'
            when service_date <> service_date_before then 'midnight'
        end as cut_reason,
        resolution_km,
        -- sums never fall, so the largest sum up to here over the rows that changed is the one at the last change
        max(case when step_km is null or step_km <> 0 then speed_sum_km end) over w as speed_sum_at_change_km,
        max(case when step_km is null or step_km <> 0 then gps_sum_km end) over w as gps_sum_at_change_km
    from stepped
    inner join resolution
        on stepped.device_no = resolution.device_no and stepped.measured_month = resolution.measured_month
    window w as (
        partition by stepped.device_no, stepped.measured_month order by reading_no
        rows between unbounded preceding and current row
    )
),

marked as (
    select
        *,
        coalesce(
            cut_reason,
            case
                when
                    step_km > 0
                    and greatest(
                        speed_sum_before_km - lag(speed_sum_at_change_km) over w,
                        gps_sum_before_km - lag(gps_sum_at_change_km) over w
                    ) > {{ var('odometer_frozen_km') }}
                    then 'thaw'
            end
        ) as start_reason
    from cut
    window w as ({{ in_time_order('reading_no') }})
),

numbered as (
    select
        *,
        sum(case when start_reason is not null then 1 else 0 end) over ({{ in_time_order('reading_no') }}) as run_no
    from marked
),

runs as (
    select
        run_no,
        service_date,
        max(start_reason) as start_reason,
        min(recorded_at) as from_at,
        max(recorded_at) as to_at,
        min(odometer_km) as from_km,
        max(odometer_km) as to_km,
        count(*) as reading_count,
        max(resolution_km) as resolution_km,
        -- what the witnesses saw inside, and between the reading before and the first one
        max(speed_sum_km) - min(speed_sum_km) as speed_km,
        max(gps_sum_km) - min(gps_sum_km) as gps_km,
        max(case when start_reason is not null then step_speed_km end) as before_speed_km,
        max(case when start_reason is not null then step_gps_km end) as before_gps_km,
        max(case when start_reason is not null then step_silent_s end) as before_silent_s,
        -- the odometer's standstill at either end
        count(*) filter (where start_reason is null and step_km > 0) as change_count,
        min(case when start_reason is null and step_km > 0 then recorded_at end) as first_change_at,
        max(case when start_reason is not null or step_km > 0 then recorded_at end) as last_change_at,
        min(case when start_reason is null and step_km > 0 then speed_sum_before_km end)
        - min(speed_sum_km) as head_speed_km,
        min(case when start_reason is null and step_km > 0 then gps_sum_before_km end) - min(gps_sum_km) as head_gps_km,
        max(speed_sum_km) - max(case when start_reason is not null or step_km > 0 then speed_sum_km end) as tail_speed_km,
        max(gps_sum_km) - max(case when start_reason is not null or step_km > 0 then gps_sum_km end) as tail_gps_km,
        -- edges of what else changes when a pack is swapped
        min_by(charged_total_ah, reading_no) filter (where charged_total_ah is not null) as charged_total_from_ah,
        max_by(charged_total_ah, reading_no) filter (where charged_total_ah is not null) as charged_total_to_ah,
        max(cell_slot_count) as cell_slot_count,
        max(speed_sum_km) as speed_sum_to_km,
        max(gps_sum_km) as gps_sum_to_km,
        max(silent_sum_s) as silent_sum_to_s,
        max(reading_no) as reading_no_to,
        device_no,
        measured_month
    from numbered
    group by all
),

reading_runs as (
    select
        'reading' as run_kind,
        run_no,
        service_date,
        start_reason,
        from_at,
        to_at,
        from_km,
        to_km,
        reading_count as row_count,
        resolution_km,
        change_count,
        first_change_at,
        last_change_at,
        speed_km,
        gps_km,
        before_speed_km,
        before_gps_km,
        before_silent_s,
        coalesce(head_speed_km, speed_km) as head_speed_km,
        coalesce(head_gps_km, gps_km) as head_gps_km,
        tail_speed_km,
        tail_gps_km,
        -- the last run of the month: what the witnesses saw after its last reading
        case when reading_no_to = month_edge.reading_no then month_edge.speed_sum_km - speed_sum_to_km else 0e0 end
            as after_speed_km,
        case when reading_no_to = month_edge.reading_no then month_edge.gps_sum_km - gps_sum_to_km else 0e0 end
            as after_gps_km,
        case when reading_no_to = month_edge.reading_no then month_edge.silent_sum_s - silent_sum_to_s else 0e0 end
            as after_silent_s,
        charged_total_from_ah,
        charged_total_to_ah,
        cell_slot_count,
        runs.device_no,
        runs.measured_month
    from runs
    inner join month_edge
        on runs.device_no = month_edge.device_no and runs.measured_month = month_edge.measured_month
),

zero_runs as (
    select
        'zero' as run_kind,
        reading_no as run_no,
        min(service_date) as service_date,
        'zero' as start_reason,
        min(recorded_at) filter (where is_odometer_zero) as from_at,
        max(recorded_at) filter (where is_odometer_zero) as to_at,
        cast(null as double) as from_km,
        cast(null as double) as to_km,
        count(*) filter (where is_odometer_zero) as row_count,
        cast(null as double) as resolution_km,
        cast(0 as bigint) as change_count,
        cast(null as timestamp) as first_change_at,
        cast(null as timestamp) as last_change_at,
        cast(null as double) as speed_km,
        cast(null as double) as gps_km,
        cast(null as double) as before_speed_km,
        cast(null as double) as before_gps_km,
        cast(null as double) as before_silent_s,
        cast(null as double) as head_speed_km,
        cast(null as double) as head_gps_km,
        cast(null as double) as tail_speed_km,
        cast(null as double) as tail_gps_km,
        cast(null as double) as after_speed_km,
        cast(null as double) as after_gps_km,
        cast(null as double) as after_silent_s,
        cast(null as double) as charged_total_from_ah,
        cast(null as double) as charged_total_to_ah,
        cast(null as integer) as cell_slot_count,
        device_no,
        measured_month
    from motion
    where odometer_km is null
    group by device_no, measured_month, reading_no
    having bool_or(is_odometer_zero)
)

select
    run_kind,
    cast(run_no as bigint) as run_no,
    service_date,
    start_reason,
    from_at,
    to_at,
    from_km,
    to_km,
    cast(row_count as bigint) as row_count,
    resolution_km,
    cast(change_count as bigint) as change_count,
    first_change_at,
    last_change_at,
    speed_km,
    gps_km,
    before_speed_km,
    before_gps_km,
    before_silent_s,
    head_speed_km,
    head_gps_km,
    tail_speed_km,
    tail_gps_km,
    after_speed_km,
    after_gps_km,
    after_silent_s,
    charged_total_from_ah,
    charged_total_to_ah,
    cast(cell_slot_count as integer) as cell_slot_count,
    device_no,
    measured_month
from (
    select * from reading_runs
    union all
    select * from zero_runs
) as both_kinds
