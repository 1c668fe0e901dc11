{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per time that a device in scope drove: a driving fragment long enough to be no tick of the odometer, or a
-- silence over which the odometer moved. A charging session does not reach over one. Stitched.
with

fragments as (
    select * from {{ ref('int_stitched_fragment') }}
),

silences as (
    select * from {{ ref('int_silence') }}
    where not is_joint and has_moved
)

select
    false as is_silence,
    from_at,
    to_at,
    cast(null as varchar) as state_before,
    device_no
from fragments
where
    state = 'DRIVE'
    and (speed_km >= {{ var('trip_min_km') }} or odometer_to_km - odometer_from_km >= {{ var('trip_min_km') }})
union all
select
    true as is_silence,
    from_at,
    to_at,
    state_before,
    device_no
from silences
