{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per silence and KST day: the part of the silence that lies in the day, and the SoC at both of its ends, in a
-- straight line between the last reading before and the first after. Where these two lie more than
-- {{ var('silence_known_max_h') }} h apart the SoC is unknown. A joint of two months is a silence of a few seconds
-- here, so that hours add up. Stitched.
with

silences as (
    select
        from_at,
        to_at,
        silence_s / 3600 as silent_h,
        has_moved as is_driven,
        charge_evidence is not null as is_charged,
        is_joint,
        -- an awake period without any SoC leaves the one before it standing
        {{ last_known('soc_before_pct') }} over w as soc_before_pct,
        {{ last_known('case when soc_before_pct is not null then from_at end') }} over w as soc_before_at,
        coalesce(soc_after_pct, {{ lead_known('soc_after_pct') }} over w) as soc_after_pct,
        coalesce(
            case when soc_after_pct is not null then to_at end,
            {{ lead_known('case when soc_after_pct is not null then to_at end') }} over w
        ) as soc_after_at,
        device_no
    from {{ ref('int_silence') }}
    where to_at > from_at
    window w as (partition by device_no order by from_at)
),

known as (
    select
        *,
        {{ seconds_between('soc_before_at', 'soc_after_at') }} as soc_span_s,
        case
            when {{ seconds_between('soc_before_at', 'soc_after_at') }} <= {{ var('silence_known_max_h') }} * 3600e0
                then soc_after_pct - soc_before_pct
        end as soc_rise_pct,
        silent_h > {{ var('silence_known_max_h') }} as is_long
    from silences
),

days as (
    select
        known.*,
        {{ kst_day('days.on_date') }} as service_date,
        greatest(known.from_at, cast({{ kst_day('days.on_date') }} as timestamp)) as part_from_at,
        least(known.to_at, cast({{ add_days(kst_day('days.on_date'), 1) }} as timestamp)) as part_to_at
    from known
    {{ cross_join_days(kst_day('known.from_at'), kst_day('known.to_at')) }}
)

select
    from_at as silence_from_at,
    to_at as silence_to_at,
    silent_h,
    part_from_at,
    part_to_at,
    {{ seconds_between('part_from_at', 'part_to_at') }} / 3600 as part_h,
    soc_before_pct + soc_rise_pct * {{ seconds_between('soc_before_at', 'part_from_at') }} / nullif(soc_span_s, 0)
        as soc_from_pct,
    soc_before_pct + soc_rise_pct * {{ seconds_between('soc_before_at', 'part_to_at') }} / nullif(soc_span_s, 0)
        as soc_to_pct,
    is_joint,
    is_long,
    is_driven,
    is_charged,
    device_no,
    service_date,
    {{ month_of('service_date') }} as measured_month
from days
where part_to_at > part_from_at
