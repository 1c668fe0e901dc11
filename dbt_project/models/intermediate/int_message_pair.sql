{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per BMS message with the time since the message before it in the same partition, and the kilometres that
-- their two speeds give.
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
        lag(recorded_at) over w as message_before_at,
        {{ lag_known('speed_kmh') }} over w as speed_before_kmh,
        {{ lag_known('case when speed_kmh is not null then recorded_at end') }} over w as speed_before_at,
        lag(odometer_km) over w as odometer_before_km,
        lead(recorded_at) over w is not null and lead(odometer_km) over w is null as is_before_blank
    from messages
    window w as ({{ in_time_order() }})
),

timed as (
    select
        *,
        {{ seconds_between('message_before_at', 'recorded_at') }} as interval_s,
        {{ seconds_between('speed_before_at', 'recorded_at') }} as speed_interval_s
    from paired
)

select
    recorded_at,
    message_before_at,
    {{ kst_day('recorded_at') }} as service_date,
    {{ kst_day('message_before_at') }} as date_before,
    interval_s,
    coalesce(interval_s > {{ var('logging_gap_s') }}, false) as is_gap,
    speed_kmh,
    -- rows without a speed between two that have one are bridged
    case
        when speed_interval_s <= {{ var('logging_gap_s') }}
            then (speed_kmh + speed_before_kmh) / 2 * speed_interval_s / 3600
    end as speed_step_km,
    odometer_km,
    odometer_before_km,
    is_odometer_zero,
    is_before_blank,
    charged_total_ah,
    cell_slot_count,
    device_no,
    measured_month
from timed
