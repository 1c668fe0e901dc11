{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per device in scope: which source its distance comes from. The odometer where the car delivers one; else the
-- integral of speed where it is sampled densely; else GPS; else sparse speed; else none.
with

odometer_segment as (
    select distinct device_no
    from {{ source('stitched', 'odometer_segment') }}
    where source = 'odometer' and {{ devices_in_scope() }}
),

mileage_day as (
    select * from {{ ref('int_mileage_day') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

device_setting as (
    select device_no from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

sampled as (
    select
        median(interval_median_s) as interval_s,
        sum(speed_count) as speed_count,
        sum(message_count) as message_count,
        sum(fix_count) as fix_count,
        device_no
    from mileage_day
    group by device_no
)

select
    case
        when odometer_segment.device_no is not null then 'odometer'
        when
            sampled.speed_count * 2 >= sampled.message_count and sampled.speed_count > 0
            and sampled.interval_s <= {{ var('speed_dense_s') }} then 'speed'
        when sampled.fix_count > 0 then 'gps'
        when sampled.speed_count > 0 then 'speed'
        else 'none'
    end as distance_source,
    device_setting.device_no
from device_setting
left join odometer_segment on device_setting.device_no = odometer_segment.device_no
left join sampled on device_setting.device_no = sampled.device_no
