{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per minute with standing fixes: their median, so that single teleports do not matter. Local.
select
    min(recorded_at) as seen_at,
    median(lat) as lat,
    median(lng) as lng,
    device_no,
    measured_month
from {{ ref('stg_gps') }}
where
    lat is not null and lng is not null and not is_hdop_suspect
    and coalesce(speed_kmh, 0) < {{ var('gps_standing_kmh') }}
group by device_no, measured_month, {{ time_slot('recorded_at', 60) }}
