{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per device in scope and month of which the audit says something: whether its lifetime counters failed, and
-- are not believed where there is anything else, and what the offset of its current sensor is expected to be. Stitched.
{%- set is_distrusted = "verdict in ('" ~ var('distrusted_verdicts') | join("', '") ~ "')" %}
select
    {{ is_distrusted }} as is_failed,
    expected_offset_a,
    device_no,
    measured_month
from {{ ref('fct_counter_audit_monthly') }}
where {{ devices_in_scope() }} and ({{ is_distrusted }} or expected_offset_a is not null)
