{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per event of the odometer: what was wrong or missing, when, and what became of its kilometres.
with

events as (
    select * from {{ source('stitched', 'odometer_event') }}
    where {{ devices_in_scope() }}
)

select
    {{ short_hash("concat_ws('|', device_no, code, cast(occurred_at as string))") }} as event_id,
    code,
    occurred_at,
    ended_at,
    from_km,
    to_km,
    distance_km,
    action,
    cast(row_count as bigint) as row_count,
    {{ kst_day('occurred_at') }} as service_date,
    device_no,
    {{ month_of(kst_day('occurred_at')) }} as measured_month
from events
