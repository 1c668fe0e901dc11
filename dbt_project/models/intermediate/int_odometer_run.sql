{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per piece of the odometer's series. `reading`: a monotone run, that is consecutive valid readings of one KST
-- day without a fall, without a step that no car drives, without a step that neither speed nor time explains, without
-- a logging gap, and without a standstill that the speed contradicts. `zero`: a stretch of zeros between two readings.
-- `silence`: a logging gap. Local: what a cut means (glitch, rollback, gap, freeze) is decided by the stitching, over
-- the device's whole history; a cut alone costs nothing.
with

pairs as (
    select * from {{ ref('int_message_pair') }}
),

-- messages without a reading, and the readings around them: what happened meanwhile belongs to the reading after
around_blanks as (
    select
        recorded_at,
        odometer_km,
        is_odometer_zero,
        coalesce(speed_step_km, 0e0) as speed_step_km,
        case when is_gap then interval_s else 0e0 end as silent_s,
        count(odometer_km) over (
            {{ in_time_order() }} rows between unbounded preceding and 1 preceding
        ) as blank_no,
        {{ last_known('odometer_km') }} over (
            {{ in_time_order() }} rows between unbounded preceding and 1 preceding
        ) as reading_before_km,
        {{ last_known('case when odometer_km is not null then recorded_at end') }} over (
            {{ in_time_order() }} rows between unbounded preceding and 1 preceding
        ) as reading_before_at,
        device_no,
        measured_month
    from pairs
    where odometer_km is null or (odometer_before_km is null and message_before_at is not null) or is_before_blank
),

blanks as (
    select
        blank_no,
        count(*) filter (where is_odometer_zero) as zero_count,
        min(recorded_at) filter (where is_odometer_zero) as zero_from_at,
        max(recorded_at) filter (where is_odometer_zero) as zero_to_at,
        max(case when odometer_km is not null then recorded_at end) as reading_at,
        max(reading_before_km) as reading_before_km,
        max(reading_before_at) as reading_before_at,
        {{ fixed_sum('speed_step_km') }} as speed_step_km,
        {{ fixed_sum('silent_s') }} as silent_s,
        device_no,
        measured_month
    from around_blanks
    group by device_no, measured_month, blank_no
    having count(*) filter (where odometer_km is null) > 0
),

resolution as (
    select
        -- an odometer that never shows a fraction counts whole kilometres
        case when bool_or(odometer_km <> floor(odometer_km)) then 0.1e0 else 1e0 end as resolution_km,
        max(case when odometer_km is not null then recorded_at end) as last_reading_at,
        device_no,
        measured_month
    from pairs
    group by device_no, measured_month
    having count(odometer_km) > 0
),

stepped as (
    select
        pairs.recorded_at,
        pairs.service_date,
        pairs.odometer_km,
        case
            when blanks.reading_at is null then pairs.date_before
            else {{ kst_day('blanks.reading_before_at') }}
        end as date_before,
        pairs.odometer_km
        - case
            when blanks.reading_at is null then pairs.odometer_before_km
            else blanks.reading_before_km
        end as step_km,
        case
            when blanks.reading_at is null then pairs.interval_s
            else {{ seconds_between('blanks.reading_before_at', 'pairs.recorded_at') }}
        end as step_s,
        coalesce(blanks.speed_step_km, pairs.speed_step_km, 0e0) as step_speed_km,
        coalesce(blanks.silent_s, case when pairs.is_gap then pairs.interval_s end, 0e0) as step_silent_s,
        pairs.speed_step_km is not null as has_speed,
        pairs.charged_total_ah,
        pairs.cell_slot_count,
        resolution.resolution_km,
        pairs.device_no,
        pairs.measured_month
    from pairs
    inner join resolution
        on pairs.device_no = resolution.device_no and pairs.measured_month = resolution.measured_month
    left join blanks
        on
            pairs.device_no = blanks.device_no and pairs.measured_month = blanks.measured_month
            and pairs.recorded_at = blanks.reading_at
    where pairs.odometer_km is not null
),

cut as (
    select
        *,
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
            when service_date <> date_before then 'midnight'
        end as cut_reason
    from stepped
),

-- a plateau is readings of one value; its first row is the change
changes as (
    select
        *,
        cut_reason is not null or step_km <> 0 as is_first
    from cut
),

plateaus_numbered as (
    select
        *,
        sum(case when is_first then 1 else 0 end) over ({{ in_time_order() }}) as plateau_no
    from changes
),

plateaus as (
    select
        plateau_no,
        min(service_date) as service_date,
        max(cut_reason) as cut_reason,
        min(recorded_at) as from_at,
        max(recorded_at) as to_at,
        min(odometer_km) as odometer_km,
        count(*) as row_count,
        max(resolution_km) as resolution_km,
        bool_or(has_speed) as has_speed,
        -- the step into the plateau, and what the speed says of the plateau itself
        coalesce({{ fixed_sum('step_speed_km', where='is_first') }}, 0e0) as before_speed_km,
        coalesce({{ fixed_sum('step_speed_km', where='not is_first') }}, 0e0) as still_speed_km,
        {{ fixed_sum('step_silent_s') }} as before_silent_s,
        min_by(charged_total_ah, recorded_at) filter (where charged_total_ah is not null) as charged_total_from_ah,
        max_by(charged_total_ah, recorded_at) filter (where charged_total_ah is not null) as charged_total_to_ah,
        max(cell_slot_count) as cell_slot_count,
        device_no,
        measured_month
    from plateaus_numbered
    group by device_no, measured_month, plateau_no
),

marked as (
    select
        *,
        coalesce(
            cut_reason,
            case
                when
                    lag(still_speed_km) over w > {{ var('odometer_frozen_km') }}
                    or (
                        not has_speed
                        and {{ seconds_between('lag(from_at) over w', 'lag(to_at) over w') }} > {{ var('still_s') }}
                    )
                    then 'thaw'
            end
        ) as start_reason
    from plateaus
    window w as ({{ in_time_order('plateau_no') }})
),

numbered as (
    select
        *,
        sum(case when start_reason is not null then 1 else 0 end) over ({{ in_time_order('plateau_no') }}) as run_no
    from marked
),

runs as (
    select
        run_no,
        min(service_date) as service_date,
        max(start_reason) as start_reason,
        min(from_at) as from_at,
        max(to_at) as to_at,
        min(odometer_km) as from_km,
        max(odometer_km) as to_km,
        sum(row_count) as row_count,
        max(resolution_km) as resolution_km,
        count(*) - 1 as change_count,
        min(case when start_reason is null then from_at end) as first_change_at,
        max(from_at) as last_change_at,
        {{ fixed_sum('still_speed_km') }}
        + coalesce({{ fixed_sum('before_speed_km', where='start_reason is null') }}, 0e0)
            as speed_km,
        {{ fixed_sum('before_speed_km', where='start_reason is not null') }} as before_speed_km,
        {{ fixed_sum('before_silent_s', where='start_reason is not null') }} as before_silent_s,
        min_by(still_speed_km, plateau_no) as head_speed_km,
        max_by(still_speed_km, plateau_no) as tail_speed_km,
        min_by(charged_total_from_ah, plateau_no) filter (where charged_total_from_ah is not null)
            as charged_total_from_ah,
        max_by(charged_total_to_ah, plateau_no) filter (where charged_total_to_ah is not null) as charged_total_to_ah,
        max(cell_slot_count) as cell_slot_count,
        device_no,
        measured_month
    from numbered
    group by device_no, measured_month, run_no
),

reading_runs as (
    select
        'reading' as run_kind,
        runs.run_no,
        runs.service_date,
        runs.start_reason,
        runs.from_at,
        runs.to_at,
        runs.from_km,
        runs.to_km,
        runs.row_count,
        runs.resolution_km,
        runs.change_count,
        runs.first_change_at,
        runs.last_change_at,
        runs.speed_km,
        -- before the first reading of the month there may be messages without one
        runs.before_speed_km,
        runs.before_silent_s,
        runs.head_speed_km,
        runs.tail_speed_km,
        -- after the last reading of the month too
        coalesce(blanks.speed_step_km, 0e0) as after_speed_km,
        coalesce(blanks.silent_s, 0e0) as after_silent_s,
        runs.charged_total_from_ah,
        runs.charged_total_to_ah,
        runs.cell_slot_count,
        runs.device_no,
        runs.measured_month
    from runs
    inner join resolution
        on runs.device_no = resolution.device_no and runs.measured_month = resolution.measured_month
    left join blanks
        on
            runs.device_no = blanks.device_no and runs.measured_month = blanks.measured_month
            and blanks.reading_at is null and runs.to_at = resolution.last_reading_at
),

other_runs as (
    select
        'zero' as run_kind,
        row_number() over (partition by device_no, measured_month order by blank_no) as run_no,
        case
            when reading_before_at is null and reading_at is null then 'start_end'
            when reading_before_at is null then 'start'
            when reading_at is null then 'end'
        end as start_reason,
        zero_from_at as from_at,
        zero_to_at as to_at,
        zero_count as row_count,
        device_no,
        measured_month
    from blanks
    where zero_count > 0
    union all
    select
        'silence' as run_kind,
        row_number() over (partition by device_no, measured_month order by recorded_at) as run_no,
        'gap' as start_reason,
        message_before_at as from_at,
        recorded_at as to_at,
        cast(0 as bigint) as row_count,
        device_no,
        measured_month
    from pairs
    where is_gap
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
    before_speed_km,
    before_silent_s,
    head_speed_km,
    tail_speed_km,
    after_speed_km,
    after_silent_s,
    charged_total_from_ah,
    charged_total_to_ah,
    cast(cell_slot_count as integer) as cell_slot_count,
    device_no,
    measured_month
from reading_runs
union all
select
    run_kind,
    cast(run_no as bigint) as run_no,
    {{ kst_day('from_at') }} as service_date,
    start_reason,
    from_at,
    to_at,
    cast(null as double) as from_km,
    cast(null as double) as to_km,
    cast(row_count as bigint) as row_count,
    cast(null as double) as resolution_km,
    cast(null as bigint) as change_count,
    cast(null as timestamp) as first_change_at,
    cast(null as timestamp) as last_change_at,
    cast(null as double) as speed_km,
    cast(null as double) as before_speed_km,
    cast(null as double) as before_silent_s,
    cast(null as double) as head_speed_km,
    cast(null as double) as tail_speed_km,
    cast(null as double) as after_speed_km,
    cast(null as double) as after_silent_s,
    cast(null as double) as charged_total_from_ah,
    cast(null as double) as charged_total_to_ah,
    cast(null as integer) as cell_slot_count,
    device_no,
    measured_month
from other_runs
