{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per silence of a device: what lies between two neighbouring awake periods, over month ends and gated months.
-- The SoC in it runs in a straight line between the last reading before and the first after; where these two lie more
-- than {{ var('silence_known_max_h') }} h apart it is unknown. A seam of two months without a pause is a silence too,
-- of a few seconds: hours add up. Stitched: reads the awake periods of all months of the devices in scope.
with

periods as (
    select * from {{ ref('int_awake_period') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

inferred_session as (
    select
        started_at,
        ended_at,
        device_no
    from {{ ref('fct_charging_session') }}
    where {{ devices_in_scope() }} and is_inferred
),

neighbours as (
    select
        device_no,
        to_at as from_at,
        lead(from_at) over w as to_at,
        {{ last_known('soc_last_pct') }} over w as soc_before_pct,
        {{ last_known('soc_last_at') }} over w as soc_before_at,
        {{ lead_known('soc_first_pct') }} over w as soc_after_pct,
        {{ lead_known('soc_first_at') }} over w as soc_after_at,
        lead(odometer_first_km) over w - odometer_last_km as moved_km
    from periods
    window w as (partition by device_no order by from_at)
),

silences as (
    select
        *,
        {{ seconds_between('from_at', 'to_at') }} / 3600 as silent_h,
        coalesce(
            {{ seconds_between('soc_before_at', 'soc_after_at') }} <= {{ var('silence_known_max_h') }} * 3600e0,
            false
        ) as is_soc_known,
        coalesce(moved_km > {{ var('parked_km_max') }}, false) as is_driven
    from neighbours
    where to_at > from_at
),

charged as (
    select distinct
        silences.device_no,
        silences.from_at
    from silences
    inner join inferred_session
        on
            silences.device_no = inferred_session.device_no
            and inferred_session.started_at < silences.to_at and inferred_session.ended_at > silences.from_at
)

select
    silences.from_at,
    silences.to_at,
    silences.silent_h,
    silences.soc_before_at,
    silences.soc_before_pct,
    silences.soc_after_at,
    silences.soc_after_pct,
    silences.is_soc_known,
    silences.silent_h > {{ var('silence_known_max_h') }} as is_long,
    silences.is_driven,
    charged.device_no is not null as is_charged,
    silences.device_no
from silences
left join charged on silences.device_no = charged.device_no and silences.from_at = charged.from_at
