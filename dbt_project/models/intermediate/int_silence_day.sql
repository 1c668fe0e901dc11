{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per silence and KST day: the part of the silence that lies in the day, and the SoC at both of its ends.
-- Stitched.
with

silences as (
    select * from {{ ref('int_silence') }}
),

days as (
    select
        silences.*,
        {{ kst_day('days.on_date') }} as service_date,
        greatest(silences.from_at, cast({{ kst_day('days.on_date') }} as timestamp)) as part_from_at,
        least(silences.to_at, cast({{ add_days(kst_day('days.on_date'), 1) }} as timestamp)) as part_to_at
    from silences
    {{ cross_join_days(kst_day('silences.from_at'), kst_day('silences.to_at')) }}
),

placed as (
    select
        *,
        {{ seconds_between('part_from_at', 'part_to_at') }} / 3600 as part_h,
        case when is_soc_known then soc_after_pct - soc_before_pct end as soc_rise_pct,
        {{ seconds_between('soc_before_at', 'soc_after_at') }} as soc_span_s
    from days
    where part_to_at > part_from_at
)

select
    from_at as silence_from_at,
    part_from_at,
    part_to_at,
    part_h,
    soc_before_pct + soc_rise_pct * {{ seconds_between('soc_before_at', 'part_from_at') }} / nullif(soc_span_s, 0)
        as soc_from_pct,
    soc_before_pct + soc_rise_pct * {{ seconds_between('soc_before_at', 'part_to_at') }} / nullif(soc_span_s, 0)
        as soc_to_pct,
    is_long,
    is_driven,
    is_charged,
    device_no,
    service_date,
    {{ month_of('service_date') }} as measured_month
from placed
