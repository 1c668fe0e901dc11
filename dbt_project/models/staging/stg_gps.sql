-- One row per GPS message of the partitions in scope: contract names with units, positions that are no value turned
-- into NULL, suspect fixes flagged and kept. Rules about neighbouring fixes belong to the intermediate models.
with

raw_gps as (
    select * from {{ raw_rows('gps') }}
),

placed as (
    select
        *,
        -- a receiver without a fix reports 0 for one or both: no car of a Korean fleet drives on the equator
        coalesce(lat = 0 or lng = 0, false) as is_position_zero,
        coalesce(abs(lat) > 90 or abs(lng) > 180, false) as is_position_out_of_range
    from raw_gps
),

renamed as (
    select
        time as recorded_at,
        msg_time as message_at,
        case when not is_position_zero and not is_position_out_of_range then lat end as lat,
        case when not is_position_zero and not is_position_out_of_range then lng end as lng,
        speed as speed_kmh,
        direction as direction_deg,
        hdop,
        fuel_pct,
        mode as fix_mode,
        source as fix_source,
        state as fix_state,
        is_position_zero,
        is_position_out_of_range,
        coalesce(hdop > {{ var('gps_max_hdop') }}, false) as is_hdop_suspect,
        coalesce(speed < 0 or speed > {{ var('speed_max_kmh') }}, false) as is_speed_suspect,
        layout_id,
        source_file,
        source_row,
        device_no,
        measured_month
    from placed
)

select * from renamed
