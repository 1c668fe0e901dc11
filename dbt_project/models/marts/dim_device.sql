{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device: what the platform decided about it, and what arrived from it.
with

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

layout_setting as (
    select * from {{ source('ops', 'layout_setting') }}
    where {{ devices_in_scope() }}
),

month_setting as (
    select * from {{ source('ops', 'month_setting') }}
    where {{ devices_in_scope() }}
),

raw_partition as (
    select * from {{ source('ops', 'raw_partition') }}
    where {{ devices_in_scope() }} and row_count > 0
),

layouts as (
    select
        case when min(voltage_scale) = max(voltage_scale) then min(voltage_scale) end as delivered_voltage_scale,
        count(*) as layout_count,
        device_no
    from layout_setting
    group by device_no
),

sign as (
    select
        current_sign,
        device_no
    from layout_setting
    union all
    select
        current_sign,
        device_no
    from month_setting
),

signs as (
    select
        case when min(current_sign) = max(current_sign) then min(current_sign) end as delivered_current_sign,
        device_no
    from sign
    group by device_no
),

arrived as (
    select
        min(first_at) as first_seen_at,
        max(last_at) as last_seen_at,
        coalesce(sum(row_count) filter (where kind = 'bms'), 0) as row_count,
        coalesce(sum(row_count) filter (where kind = 'gps'), 0) as gps_row_count,
        device_no
    from raw_partition
    group by device_no
)

select
    device_setting.car_type,
    device_setting.pack_type,
    device_setting.chemistry,
    cast(device_setting.cell_count as integer) as cell_count,
    cast(device_setting.temp_sensor_count as integer) as temp_sensor_count,
    device_setting.capacity_nominal_ah,
    device_setting.capacity_source,
    device_setting.insulation_cap_kohm,
    cast(signs.delivered_current_sign as integer) as delivered_current_sign,
    layouts.delivered_voltage_scale,
    cast(coalesce(layouts.layout_count, 0) as integer) as layout_count,
    arrived.first_seen_at,
    arrived.last_seen_at,
    cast(coalesce(arrived.row_count, 0) as bigint) as row_count,
    cast(coalesce(arrived.gps_row_count, 0) as bigint) as gps_row_count,
    device_setting.device_no
from device_setting
-- a device all of whose rows were rejected is known too
left join arrived on device_setting.device_no = arrived.device_no
left join layouts on device_setting.device_no = layouts.device_no
left join signs on device_setting.device_no = signs.device_no
