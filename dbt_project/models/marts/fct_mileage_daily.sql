{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device and KST day, from the device's first day with rows to its last one: days without rows keep the
-- kilometres of the silence they lie in, split by time. Days of a gated month are rows without figures.
with

raw_partition as (
    select * from {{ source('ops', 'raw_partition') }}
    where {{ devices_in_scope() }} and row_count > 0
),

gated_month as (
    select * from {{ ref('int_gated_month') }}
),

pieces as (
    select * from {{ ref('int_mileage_piece') }}
),

distance_source as (
    select * from {{ ref('int_distance_source') }}
),

mileage_day as (
    select * from {{ ref('int_mileage_day') }}
    where {{ devices_in_scope() }}
),

gps_run as (
    select * from {{ ref('int_gps_run') }}
    where {{ devices_in_scope() }}
),

events as (
    select * from {{ ref('fct_odometer_event') }}
    where {{ devices_in_scope() }}
),

-- a month all of whose rows were rejected has no rows to date it: it is a gated month from its first day to its last
covered as (
    select
        {{ kst_day('first_at') }} as first_date,
        {{ kst_day('last_at') }} as last_date,
        device_no
    from raw_partition
    union all
    select
        cast(concat(gated_month.measured_month, '-01') as date) as first_date,
        last_day(cast(concat(gated_month.measured_month, '-01') as date)) as last_date,
        gated_month.device_no
    from gated_month
    left join raw_partition
        on
            gated_month.device_no = raw_partition.device_no
            and gated_month.measured_month = raw_partition.measured_month
    where raw_partition.device_no is null
),

spans as (
    select
        min(first_date) as first_date,
        max(last_date) as last_date,
        device_no
    from covered
    group by device_no
),

calendar as (
    select
        {{ kst_day('days.on_date') }} as service_date,
        spans.device_no,
        {{ month_of('days.on_date') }} as measured_month
    from spans
    {{ cross_join_days('spans.first_date', 'spans.last_date') }}
),

-- the source the car's distance comes from; a step over midnight that belongs to one side as a whole would be off by
-- the larger of its two parts
own_pieces as (
    select
        pieces.*,
        case
            when pieces.from_date < pieces.service_date or pieces.to_date > pieces.service_date
                then greatest(pieces.scaled_km, pieces.segment_scaled_km - pieces.scaled_km)
            else 0e0
        end as open_km
    from pieces
    inner join distance_source
        on pieces.device_no = distance_source.device_no and pieces.source = distance_source.distance_source
),

distance_day as (
    select
        service_date,
        {{ fixed_sum('scaled_km') }} as distance_km,
        {{ fixed_sum('unlogged_km') }} as unlogged_km,
        {{ fixed_sum('repaired_km') }} as repaired_km,
        {{ fixed_sum('uncertain_km') }} as step_uncertain_km,
        {{ fixed_sum('open_km') }} as boundary_uncertain_km,
        device_no
    from own_pieces
    group by device_no, service_date
),

witness_day as (
    select
        service_date,
        {{ fixed_sum('km', where="source = 'speed' and kind <> 'bridge'") }} as distance_speed_km,
        {{ fixed_sum('km', where="source = 'gps'") }} as distance_gps_km,
        {{ fixed_sum('unlogged_km', where="source = 'gps'") }} as bridged_gps_km,
        device_no
    from pieces
    group by device_no, service_date
),

-- the odometer at midnight: the last kept reading before it, and what of the steps since then lies before it
last_reading as (
    select
        service_date,
        max(to_at) as reading_at,
        max_by(to_km, to_at) as reading_km,
        min_by(from_km, from_at) as first_reading_km,
        device_no
    from pieces
    where source = 'odometer' and kind = 'run'
    group by device_no, service_date
),

after_reading as (
    select
        pieces.service_date,
        {{ fixed_sum('pieces.km') }} as after_km,
        pieces.device_no
    from pieces
    left join last_reading
        on pieces.device_no = last_reading.device_no and pieces.service_date = last_reading.service_date
    where
        pieces.source = 'odometer' and pieces.kind <> 'run'
        and (last_reading.reading_at is null or pieces.from_at >= last_reading.reading_at)
    group by pieces.device_no, pieces.service_date
),

carried as (
    select
        calendar.service_date,
        last_reading.reading_km,
        last_reading.first_reading_km,
        coalesce(after_reading.after_km, 0e0) as after_km,
        count(last_reading.reading_km) over (
            partition by calendar.device_no order by calendar.service_date
            rows between unbounded preceding and current row
        ) as reading_day_no,
        calendar.device_no
    from calendar
    left join last_reading
        on calendar.device_no = last_reading.device_no and calendar.service_date = last_reading.service_date
    left join after_reading
        on calendar.device_no = after_reading.device_no and calendar.service_date = after_reading.service_date
),

levels as (
    select
        service_date,
        first_reading_km,
        max(reading_km) over (partition by device_no, reading_day_no)
        + sum(after_km) over (
            partition by device_no, reading_day_no order by service_date
            rows between unbounded preceding and current row
        ) as odometer_end_km,
        device_no
    from carried
),

levels_of_day as (
    select
        service_date,
        coalesce(
            lag(odometer_end_km) over (partition by device_no order by service_date),
            first_reading_km
        ) as odometer_start_km,
        odometer_end_km,
        device_no
    from levels
),

gps_day as (
    select
        service_date,
        count(*) filter (where is_after_jump) as gps_jump_count,
        device_no
    from gps_run
    group by device_no, service_date
),

event_day as (
    select
        service_date,
        count(*) as event_count,
        device_no
    from events
    group by device_no, service_date
),

joined as (
    select
        calendar.service_date,
        distance_source.distance_source,
        gated_month.gated_by,
        levels_of_day.odometer_start_km,
        levels_of_day.odometer_end_km,
        case when distance_source.distance_source <> 'none' then coalesce(distance_day.distance_km, 0e0) end
            as distance_km,
        witness_day.distance_gps_km,
        witness_day.bridged_gps_km,
        witness_day.distance_speed_km,
        coalesce(distance_day.unlogged_km, 0e0) as unlogged_km,
        coalesce(distance_day.repaired_km, 0e0) as repaired_km,
        coalesce(distance_day.step_uncertain_km, 0e0) as step_uncertain_km,
        coalesce(distance_day.boundary_uncertain_km, 0e0) as boundary_uncertain_km,
        mileage_day.speed_km,
        mileage_day.speed_seen_by_gps_km,
        coalesce(event_day.event_count, 0) as event_count,
        coalesce(mileage_day.message_count, 0) as message_count,
        coalesce(mileage_day.fix_count, 0) as fix_count,
        coalesce(gps_day.gps_jump_count, 0) as gps_jump_count,
        coalesce(mileage_day.odometer_zero_count, 0) as odometer_zero_count,
        mileage_day.interval_median_s,
        mileage_day.soc_first_pct,
        mileage_day.soc_last_pct,
        mileage_day.fuel_first_pct,
        mileage_day.fuel_last_pct,
        calendar.device_no,
        calendar.measured_month
    from calendar
    left join distance_source on calendar.device_no = distance_source.device_no
    left join gated_month
        on calendar.device_no = gated_month.device_no and calendar.measured_month = gated_month.measured_month
    left join levels_of_day
        on calendar.device_no = levels_of_day.device_no and calendar.service_date = levels_of_day.service_date
    left join distance_day
        on calendar.device_no = distance_day.device_no and calendar.service_date = distance_day.service_date
    left join witness_day
        on calendar.device_no = witness_day.device_no and calendar.service_date = witness_day.service_date
    left join mileage_day
        on calendar.device_no = mileage_day.device_no and calendar.service_date = mileage_day.service_date
    left join gps_day
        on calendar.device_no = gps_day.device_no and calendar.service_date = gps_day.service_date
    left join event_day
        on calendar.device_no = event_day.device_no and calendar.service_date = event_day.service_date
),

-- a day of a gated month has no figures
figures as (
    select
        service_date,
        odometer_start_km,
        odometer_end_km,
        distance_km,
        distance_gps_km,
        distance_speed_km,
        unlogged_km,
        repaired_km,
        step_uncertain_km,
        boundary_uncertain_km,
        100 * (1 - unlogged_km / nullif(distance_km, 0)) as coverage_pct,
        case
            when speed_km > 0
                then 100 * least(1e0, speed_seen_by_gps_km / greatest(speed_km, coalesce(distance_km, 0e0)))
            when distance_gps_km > 0
                then 100 * least(1e0, (distance_gps_km - bridged_gps_km) / greatest(distance_gps_km, distance_km))
        end as gps_coverage_pct,
        device_no
    from joined
    where gated_by is null
)

select
    joined.service_date,
    joined.distance_source,
    joined.gated_by,
    figures.odometer_start_km,
    figures.odometer_end_km,
    figures.distance_km,
    figures.distance_gps_km,
    figures.distance_speed_km,
    figures.unlogged_km,
    figures.repaired_km,
    figures.step_uncertain_km,
    figures.boundary_uncertain_km,
    figures.coverage_pct,
    figures.gps_coverage_pct,
    cast(joined.event_count as integer) as event_count,
    cast(joined.message_count as bigint) as message_count,
    cast(joined.fix_count as bigint) as fix_count,
    cast(joined.gps_jump_count as integer) as gps_jump_count,
    cast(joined.odometer_zero_count as bigint) as odometer_zero_count,
    joined.interval_median_s,
    coalesce(joined.soc_first_pct, joined.fuel_first_pct) as soc_start_pct,
    coalesce(joined.soc_last_pct, joined.fuel_last_pct) as soc_end_pct,
    case
        when joined.soc_first_pct is not null then 'bms'
        when joined.fuel_first_pct is not null then 'gps'
    end as soc_source,
    -- where both units report a SoC at the end of the day, they check each other
    joined.soc_last_pct - joined.fuel_last_pct as soc_gps_difference_pct,
    joined.device_no,
    joined.measured_month
from joined
left join figures on joined.device_no = figures.device_no and joined.service_date = figures.service_date
