{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per device in scope and month that a structure check keeps out of the figures. Stitched.
select
    min(check_name) as gated_by,
    device_no,
    measured_month
from {{ source('ops', 'partition_gate') }}
where {{ devices_in_scope() }}
group by device_no, measured_month
