{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per stitched segment and KST day it touches: its kilometres cut at midnight by time. A segment of no
-- duration belongs to its day as a whole.
with

segments as (
    select
        *,
        row_number() over (partition by device_no order by source, from_at, to_at, kind, km) as segment_no,
        {{ seconds_between('from_at', 'to_at') }} as duration_s,
        {{ kst_day('from_at') }} as from_date,
        {{ kst_day('to_at') }} as to_date
    from {{ source('stitched', 'odometer_segment') }}
    where {{ devices_in_scope() }}
),

-- nearly all segments lie within one day: only the others are cut
whole as (
    select
        *,
        from_date as service_date,
        1e0 as part
    from segments
    where from_date = to_date
),

cut as (
    select
        segments.*,
        days.on_date as service_date,
        {{ seconds_between(
            'greatest(segments.from_at, cast(days.on_date as timestamp))',
            'least(segments.to_at, cast(' ~ add_days('days.on_date', 1) ~ ' as timestamp))'
        ) }} / segments.duration_s as part
    from segments
    {{ cross_join_days('segments.from_date', 'segments.to_date') }}
    where segments.from_date < segments.to_date
)

select
    segment_no,
    source,
    kind,
    from_at,
    to_at,
    from_date,
    to_date,
    km as segment_km,
    scaled_km as segment_scaled_km,
    km * part as km,
    scaled_km * part as scaled_km,
    unlogged_km * part as unlogged_km,
    repaired_km * part as repaired_km,
    uncertain_km * part as uncertain_km,
    from_km,
    to_km,
    resolution_km,
    {{ month_of('from_date') }} as from_month,
    {{ month_of('to_date') }} as to_month,
    service_date,
    device_no,
    {{ month_of('service_date') }} as measured_month
from (
    select * from whole
    union all
    select * from cut
) as pieces
