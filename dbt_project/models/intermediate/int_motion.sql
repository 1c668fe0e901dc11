{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per BMS message with what moved up to it since the start of its partition: kilometres by speed and by GPS,
-- silent seconds, valid readings of the odometer. Differences of two rows give what happened between them.
with

messages as (
    select
        recorded_at,
        odometer_km,
        is_odometer_zero,
        case when not is_speed_suspect then speed_kmh end as speed_kmh,
        charged_total_ah,
        cell_n + cell_sentinel_n + cell_placeholder_n + cell_unfit_n as cell_slot_count,
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
),

paired as (
    select
        *,
        {{ seconds_between('lag(recorded_at) over w', 'recorded_at') }} as interval_s,
        lag(speed_kmh) over w as speed_before_kmh
    from messages
    window w as ({{ in_time_order() }})
),

moved as (
    select
        *,
        interval_s > {{ var('logging_gap_s') }} as is_gap,
        case
            when interval_s <= {{ var('logging_gap_s') }}
                then (speed_kmh + speed_before_kmh) / 2 * interval_s / 3600
        end as speed_step_km
    from paired
),

timeline as (
    select
        recorded_at,
        true as is_message,
        odometer_km,
        is_odometer_zero,
        speed_kmh,
        charged_total_ah,
        cell_slot_count,
        interval_s,
        is_gap,
        speed_step_km,
        cast(null as double) as gps_step_km,
        cast(null as timestamp) as fix_at,
        device_no,
        measured_month
    from moved
    union all
    select
        first_at as recorded_at,
        false as is_message,
        cast(null as double) as odometer_km,
        false as is_odometer_zero,
        cast(null as double) as speed_kmh,
        cast(null as double) as charged_total_ah,
        cast(null as integer) as cell_slot_count,
        cast(null as double) as interval_s,
        false as is_gap,
        cast(null as double) as speed_step_km,
        step_km as gps_step_km,
        last_at as fix_at,
        device_no,
        measured_month
    from {{ ref('int_gps_position') }}
),

summed as (
    select
        *,
        sum(coalesce(speed_step_km, 0e0)) over w as speed_sum_km,
        sum(coalesce(gps_step_km, 0e0)) over w as gps_sum_km,
        sum(case when is_gap then interval_s else 0e0 end) over w as silent_sum_s,
        count(odometer_km) over w as reading_no,
        max(fix_at) over w as last_fix_at
    from timeline
    window w as (
        -- at one instant the position comes first, so that the message sees it
        {{ in_time_order('recorded_at, is_message') }} rows between unbounded preceding and current row
    )
)

select
    recorded_at,
    {{ kst_day('recorded_at') }} as service_date,
    odometer_km,
    is_odometer_zero,
    speed_kmh,
    charged_total_ah,
    cell_slot_count,
    interval_s,
    is_gap,
    speed_step_km,
    speed_sum_km,
    gps_sum_km,
    silent_sum_s,
    reading_no,
    coalesce({{ seconds_between('last_fix_at', 'recorded_at') }} <= {{ var('gps_bridge_s') }}, false) as is_seen_by_gps,
    device_no,
    measured_month
from summed
where is_message
