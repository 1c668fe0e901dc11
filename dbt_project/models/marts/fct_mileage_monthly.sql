{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device and month, from the device's first month to its last one: the sums of its days, what they are
-- worth as evidence (grade, verdict), and the interval that holds the true distance. A gated month is a row without
-- figures, grade D, with the name of the check.
with

daily as (
    select * from {{ ref('fct_mileage_daily') }}
    where {{ devices_in_scope() }}
),

events as (
    select * from {{ ref('fct_odometer_event') }}
    where {{ devices_in_scope() }}
),

pieces as (
    select * from {{ ref('int_mileage_piece') }}
),

sums as (
    select
        max(distance_source) as distance_source,
        max(gated_by) as gated_by,
        min_by(odometer_start_km, service_date) as odometer_start_km,
        max_by(odometer_end_km, service_date) as odometer_end_km,
        {{ fixed_sum('distance_km') }} as distance_km,
        {{ fixed_sum('distance_gps_km') }} as distance_gps_km,
        {{ fixed_sum('distance_speed_km') }} as distance_speed_km,
        {{ fixed_sum('unlogged_km') }} as unlogged_km,
        {{ fixed_sum('repaired_km') }} as repaired_km,
        {{ fixed_sum('step_uncertain_km') }} as step_uncertain_km,
        sum(event_count) as event_count,
        sum(message_count) as message_count,
        count(*) as day_count,
        count(*) filter (where message_count > 0 or fix_count > 0) as logged_day_count,
        {{ fixed_sum('distance_km', where='gps_coverage_pct >= ' ~ var('ratio_gps_coverage_pct')) }} as seen_by_gps_km,
        {{ fixed_sum('distance_gps_km', where='gps_coverage_pct >= ' ~ var('ratio_gps_coverage_pct')) }} as gps_km,
        {{ fixed_sum('distance_km - unlogged_km - repaired_km', where='distance_speed_km is not null') }}
            as seen_by_speed_km,
        device_no,
        measured_month
    from daily
    group by device_no, measured_month
),

-- a month has its own two boundaries: a step over one of them may belong to either side
in_month as (
    select
        pieces.segment_no,
        max(pieces.segment_scaled_km) as segment_km,
        {{ fixed_sum('pieces.scaled_km') }} as km,
        bool_or(
            pieces.from_month < pieces.measured_month or pieces.to_month > pieces.measured_month
        ) as is_crossing,
        max(pieces.resolution_km) as resolution_km,
        pieces.device_no,
        pieces.measured_month
    from pieces
    inner join {{ ref('int_distance_source') }} as distance_source
        on pieces.device_no = distance_source.device_no and pieces.source = distance_source.distance_source
    group by pieces.device_no, pieces.measured_month, pieces.segment_no
),

boundaries as (
    select
        coalesce({{ fixed_sum('greatest(km, segment_km - km)', where='is_crossing') }}, 0e0) as boundary_uncertain_km,
        max(resolution_km) as resolution_km,
        device_no,
        measured_month
    from in_month
    group by device_no, measured_month
),

event_sums as (
    select
        count(*) filter (where code = 'ODO_RESET') as reset_count,
        count(*) filter (where code = 'ODO_ROLLBACK') as rollback_count,
        count(*) filter (where code = 'ODO_JUMP' and action = 'excluded') as jump_count,
        count(*) filter (where code = 'ODO_FROZEN' and action = 'repaired') as frozen_count,
        count(*) filter (where code not in ('ODO_GAP', 'ODO_ZERO', 'ODO_SMALL_FALL')) as grave_count,
        device_no,
        measured_month
    from events
    group by device_no, measured_month
),

judged as (
    select
        sums.*,
        boundaries.boundary_uncertain_km,
        coalesce(boundaries.resolution_km, 0e0) as resolution_km,
        100 * (1 - sums.unlogged_km / nullif(sums.distance_km, 0)) as coverage_pct,
        case
            when sums.distance_source = 'odometer' and sums.seen_by_gps_km >= {{ var('ratio_min_km') }}
                then sums.seen_by_gps_km / nullif(sums.gps_km, 0)
        end as odometer_gps_ratio,
        case
            when sums.distance_source = 'odometer' and sums.seen_by_speed_km >= {{ var('ratio_min_km') }}
                then sums.seen_by_speed_km / nullif(sums.distance_speed_km, 0)
        end as odometer_speed_ratio,
        coalesce(event_sums.reset_count, 0) as reset_count,
        coalesce(event_sums.rollback_count, 0) as rollback_count,
        coalesce(event_sums.jump_count, 0) as jump_count,
        coalesce(event_sums.frozen_count, 0) as frozen_count,
        coalesce(event_sums.grave_count, 0) as grave_count
    from sums
    left join boundaries
        on sums.device_no = boundaries.device_no and sums.measured_month = boundaries.measured_month
    left join event_sums
        on sums.device_no = event_sums.device_no and sums.measured_month = event_sums.measured_month
),

banded as (
    select
        *,
        {{ ratio_band('odometer_gps_ratio') }} as odometer_gps_band,
        {{ ratio_band('odometer_speed_ratio') }} as odometer_speed_band,
        coalesce(boundary_uncertain_km, 0e0) as boundary_km,
        repaired_km > {{ var('repaired_share_max') }} * distance_km as is_mostly_repaired,
        boundary_uncertain_km > greatest(
            {{ var('boundary_km_max') }}, {{ var('boundary_share_max') }} * distance_km
        ) as is_boundary_open,
        -- how far the truth can lie from the stated distance, without what the month's edges leave open
        resolution_km + step_uncertain_km + {{ var('repaired_error_share') }} * repaired_km as odometer_error_km
    from judged
),

bounded as (
    select
        *,
        case distance_source
            when 'odometer' then odometer_error_km
            when 'speed' then {{ var('speed_error_share') }} * distance_km
            when 'gps' then {{ var('gps_low_share') }} * distance_km
        end as low_error_km,
        case distance_source
            when 'odometer' then odometer_error_km
            when 'speed'
                then {{ var('speed_error_share') }} * distance_km + {{ var('bridge_high_share') }} * unlogged_km
            when 'gps' then {{ var('gps_high_share') }} * distance_km + {{ var('bridge_high_share') }} * unlogged_km
        end as high_error_km
    from banded
),

graded as (
    select
        *,
        case
            when gated_by is not null or distance_source = 'none' then 'D'
            when 'red' in (coalesce(odometer_gps_band, ''), coalesce(odometer_speed_band, '')) then 'D'
            when
                distance_source <> 'odometer' or logged_day_count = 0 or message_count = 0
                or reset_count > 0 or rollback_count > 0
                or coalesce(coverage_pct, 100e0) < {{ var('coverage_corrected_pct') }}
                or is_mostly_repaired or is_boundary_open
                then 'C'
            when
                grave_count > 0 or coalesce(coverage_pct, 100e0) < {{ var('coverage_verified_pct') }}
                or 'amber' in (coalesce(odometer_gps_band, ''), coalesce(odometer_speed_band, ''))
                then 'B'
            else 'A'
        end as grade
    from bounded
)

-- days of a gated month have no figures, nor have their sums; the gate is named only where a NULL would get lost
select
    distance_source,
    odometer_start_km,
    odometer_end_km,
    distance_km,
    case when gated_by is null then greatest(0e0, distance_km - boundary_km - low_error_km) end as distance_lo_km,
    distance_km + boundary_km + high_error_km as distance_hi_km,
    distance_gps_km,
    distance_speed_km,
    unlogged_km,
    repaired_km,
    step_uncertain_km,
    case when gated_by is null then boundary_km end as boundary_uncertain_km,
    coverage_pct,
    odometer_gps_ratio,
    odometer_gps_band,
    odometer_speed_ratio,
    odometer_speed_band,
    cast(event_count as integer) as event_count,
    cast(message_count as bigint) as message_count,
    cast(logged_day_count as integer) as logged_day_count,
    cast(day_count as integer) as day_count,
    grade,
    case
        when gated_by is not null then concat('gated: ', gated_by)
        when distance_source = 'none' then 'neither odometer nor speed nor position'
        when grade = 'A' then 'verified'
        else concat_ws(
            '; ',
            case when distance_source <> 'odometer' then concat('no odometer: distance from ', distance_source) end,
            case when logged_day_count = 0 then 'no rows: split of a silence by time' end,
            case
                when distance_source = 'odometer' and message_count = 0 and logged_day_count > 0
                    then 'positions alone: no message of the car'
            end,
            case when reset_count > 0 then 'odometer reset: a new epoch, kilometres at the change unknown' end,
            case when rollback_count > 0 then 'odometer turned back' end,
            case when jump_count > 0 then 'odometer jump excluded' end,
            case when frozen_count > 0 then 'odometer frozen: kilometres from a witness' end,
            case
                when grave_count > reset_count + rollback_count + jump_count + frozen_count
                    then 'glitches of the odometer corrected'
            end,
            case
                when coverage_pct < {{ var('coverage_verified_pct') }}
                    then concat(cast(cast(round(100 - coverage_pct) as integer) as string), ' % of it unlogged')
            end,
            case when is_mostly_repaired then 'more than a tenth from a witness' end,
            case when is_boundary_open then 'a silence over the edge of the month' end,
            case when odometer_gps_band <> 'green' then concat('odometer / GPS ', odometer_gps_band) end,
            case when odometer_speed_band <> 'green' then concat('odometer / speed ', odometer_speed_band) end
        )
    end as verdict,
    case when gated_by is not null then 'gated' else 'current' end as published_state,
    gated_by,
    device_no,
    measured_month
from graded
