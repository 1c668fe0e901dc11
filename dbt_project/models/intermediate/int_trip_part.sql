{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per fragment of a trip of a device in scope. A trip is a chain of driving fragments; it ends after a
-- standstill of 5 minutes, a silence of 10 minutes or a charge. What lies between its first and its last move belongs
-- to it, whatever the state: a cable flag that flickers at a red light cuts nothing.
with

fragments as (
    select * from {{ ref('int_stitched_fragment') }}
),

silences as (
    select * from {{ ref('int_silence') }}
    where not is_joint
),

sessions as (
    select
        ended_at,
        device_no
    from {{ ref('fct_charging_session') }}
    where {{ devices_in_scope() }}
),

drives as (
    select
        order_no,
        from_at,
        to_at,
        device_no
    from fragments
    where state = 'DRIVE'
),

-- silent and charged time up to each drive
marks as (
    select
        from_at as mark_at,
        to_at,
        order_no,
        0e0 as silence_s,
        0e0 as moved_silence_s,
        0 as session_count,
        device_no
    from drives
    union all
    select
        to_at as mark_at,
        to_at,
        null as order_no,
        silence_s,
        -- a silence without an odometer may have been driven
        case when odometer_step_km is null or odometer_step_km > 0 then silence_s else 0e0 end as moved_silence_s,
        0 as session_count,
        device_no
    from silences
    union all
    select
        ended_at as mark_at,
        ended_at as to_at,
        null as order_no,
        0e0 as silence_s,
        0e0 as moved_silence_s,
        1 as session_count,
        device_no
    from sessions
),

summed as (
    select
        *,
        sum({{ fixed('silence_s') }}) over w as silent_total_s,
        sum({{ fixed('moved_silence_s') }}) over w as moved_total_s,
        sum(session_count) over w as session_total
    from marks
    -- what ends when a drive begins lies before it
    window w as (
        partition by device_no order by mark_at, coalesce(order_no, -1)
        rows between unbounded preceding and current row
    )
),

linked as (
    select
        order_no,
        coalesce(
            session_total > lag(session_total) over w
            or moved_total_s - lag(moved_total_s) over w > {{ var('trip_gap_s') }}
            or {{ seconds_between('lag(to_at) over w', 'mark_at') }}
            - cast(moved_total_s - lag(moved_total_s) over w as double)
            > {{ var('standstill_max_s') }},
            true
        ) as is_new,
        device_no
    from summed
    where order_no is not null
    window w as (partition by device_no order by order_no)
),

numbered as (
    select
        order_no,
        sum(case when is_new then 1 else 0 end) over (
            partition by device_no order by order_no rows between unbounded preceding and current row
        ) as trip_no,
        device_no
    from linked
),

placed as (
    select
        fragments.*,
        numbered.trip_no as own_trip_no,
        {{ last_known('numbered.trip_no') }} over (
            partition by fragments.device_no order by fragments.order_no
            rows between unbounded preceding and current row
        ) as trip_before_no,
        coalesce(numbered.trip_no, {{ lead_known('numbered.trip_no') }} over (
            partition by fragments.device_no order by fragments.order_no
        )) as trip_after_no
    from fragments
    left join numbered on fragments.device_no = numbered.device_no and fragments.order_no = numbered.order_no
),

inside as (
    select
        *,
        trip_before_no as trip_no,
        min(from_at) over (partition by device_no, trip_before_no) as trip_from_at
    from placed
    where trip_before_no = trip_after_no
),

-- what the counters and the odometer did in the silence before a part of the same trip
crossed as (
    select
        inside.*,
        coalesce(silences.silence_s, 0e0) as silence_s,
        silences.charged_step_kwh as silence_charged_kwh,
        silences.discharged_step_kwh as silence_discharged_kwh
    from inside
    left join silences
        on
            inside.is_after_silence and inside.from_at > inside.trip_from_at
            and inside.device_no = silences.device_no and inside.measured_month = silences.next_month
            and inside.awake_no = silences.next_awake_no
)

select
    {{ short_hash("device_no || '|trip|' || cast(trip_from_at as varchar)") }} as trip_id,
    order_no,
    state,
    service_date,
    from_at,
    to_at,
    duration_s,
    silence_s,
    interval_median_s,
    message_count,
    integrated_s,
    energy_s,
    lost_s,
    soc_first_pct,
    soc_last_pct,
    discharge_kwh,
    charge_kwh,
    net_ah,
    -- counters of a car whose counters never move say nothing; over a silence inside they go on
    case
        when is_charged_kwh_alive and (silence_s = 0 or silence_discharged_kwh is not null)
            then discharged_step_kwh + coalesce(silence_discharged_kwh, 0e0)
    end as counter_out_kwh,
    case
        when is_charged_kwh_alive and (silence_s = 0 or silence_charged_kwh is not null)
            then charged_step_kwh + coalesce(silence_charged_kwh, 0e0)
    end as counter_regen_kwh,
    odometer_from_km,
    odometer_to_km,
    speed_km,
    ambient_mean_c,
    ambient_n,
    source,
    device_no,
    measured_month
from (
    select
        *,
        charge_ah - discharge_ah as net_ah
    from crossed
) as parts
