{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per device in scope and month whose lifetime counters failed their audit: they are not believed where there
-- is anything else. Stitched.
select
    device_no,
    measured_month
from {{ ref('fct_counter_audit_monthly') }}
where {{ devices_in_scope() }} and verdict = 'drift'
