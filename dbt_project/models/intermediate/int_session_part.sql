{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per part of a charging session of a device in scope: a fragment with a charging (or V2L) current, a silence
-- over which charge came in, or a standstill without current readings in which the SoC rose. Parts of one direction
-- belong to one session as long as the pause between them is short and the car did not drive.
with

fragments as (
    select * from {{ ref('int_stitched_fragment') }}
),

silences as (
    select * from {{ ref('int_silence') }}
    where not is_joint
),

-- sessions do not reach over a drive; what was charged in a silence in which it drove belongs to the charge it
-- interrupted, else to what follows
drives as (
    select
        case when state_before = 'CHARGE' then to_at else from_at end as drive_at,
        device_no
    from {{ ref('int_drive') }}
),

from_fragments as (
    select
        case when state = 'V2L' then 'out' else 'in' end as direction,
        case when state in ('CHARGE', 'V2L') then 'current' else 'SoC' end as evidence,
        state not in ('CHARGE', 'V2L') as is_inferred,
        order_no,
        state,
        -- without a current, the steps of the SoC say when
        case when state in ('CHARGE', 'V2L') then from_at else step_first_at end as from_at,
        case when state in ('CHARGE', 'V2L') then to_at else step_last_at end as to_at,
        service_date as from_date,
        service_date as to_date,
        case when state in ('CHARGE', 'V2L') then duration_s else 0e0 end as charging_s,
        soc_first_pct,
        soc_last_pct,
        step_first_at,
        step_first_pct,
        step_first_ah,
        step_last_at,
        step_last_pct,
        step_last_ah,
        case when state = 'V2L' then discharge_ah when state = 'CHARGE' then charge_ah end as integral_ah,
        case when state = 'V2L' then discharge_kwh when state = 'CHARGE' then charge_kwh end as integral_kwh,
        charge_ah - discharge_ah as net_ah,
        case when is_charged_ah_alive then case when state = 'V2L' then discharged_step_ah else charged_step_ah end end
            as counter_ah,
        case
            when is_charged_kwh_alive then case when state = 'V2L' then discharged_step_kwh else charged_step_kwh end
        end
            as counter_kwh,
        plug_step_kwh,
        quick_step_kwh,
        integrated_s,
        energy_s,
        bridged_s,
        lost_s,
        0e0 as silence_s,
        current_first_a,
        current_last_a,
        interval_median_s,
        case when state = 'V2L' then -power_min_kw else power_max_kw end as power_max_kw,
        case when state = 'V2L' then 0e0 else fast_s end as fast_s,
        module_temp_first_c,
        module_temp_max_c,
        module_temp_mean_c,
        cable_count,
        charge_flag_count,
        fast_flag_count,
        v2l_flag_count,
        message_count,
        lat,
        lng,
        device_no
    from fragments
    where
        state in ('CHARGE', 'V2L')
        or {{ is_unmetered_charge() }}
),

from_silences as (
    select
        'in' as direction,
        charge_evidence as evidence,
        true as is_inferred,
        cast(null as bigint) as order_no,
        'SILENCE' as state,
        from_at,
        to_at,
        {{ kst_day('from_at') }} as from_date,
        {{ kst_day('to_at') }} as to_date,
        0e0 as charging_s,
        soc_before_pct as soc_first_pct,
        soc_after_pct as soc_last_pct,
        cast(null as timestamp) as step_first_at,
        cast(null as double) as step_first_pct,
        cast(null as double) as step_first_ah,
        cast(null as timestamp) as step_last_at,
        cast(null as double) as step_last_pct,
        cast(null as double) as step_last_ah,
        cast(null as double) as integral_ah,
        cast(null as double) as integral_kwh,
        case when not has_moved then charged_step_ah - coalesce(discharged_step_ah, 0e0) end as net_ah,
        case when not has_moved then charged_step_ah end as counter_ah,
        -- while the car also drove, the charge counter holds its recuperation too
        case when has_moved then plug_step_kwh else charged_step_kwh end as counter_kwh,
        plug_step_kwh,
        quick_step_kwh,
        0e0 as integrated_s,
        0e0 as energy_s,
        0e0 as bridged_s,
        0e0 as lost_s,
        silence_s,
        current_before_a as current_first_a,
        current_after_a as current_last_a,
        cast(null as double) as interval_median_s,
        cast(null as double) as power_max_kw,
        0e0 as fast_s,
        temp_before_c as module_temp_first_c,
        cast(null as double) as module_temp_max_c,
        cast(null as double) as module_temp_mean_c,
        0 as cable_count,
        0 as charge_flag_count,
        0 as fast_flag_count,
        0 as v2l_flag_count,
        0 as message_count,
        case when not has_moved then coalesce(lat_before, lat_after) end as lat,
        case when not has_moved then coalesce(lng_before, lng_after) end as lng,
        device_no
    from silences
    where
        charge_evidence is not null
        -- a few steps of the counter on the edge of a charge are its end or its begin
        or (
            not has_moved and (state_before = 'CHARGE' or state_after = 'CHARGE')
            and (charged_step_kwh > 0 or charged_step_ah > 0)
        )
),

parts as (
    select * from from_fragments
    union all
    select * from from_silences
),

-- how often the car had driven when the part began
marks as (
    select
        from_at as mark_at,
        1 as is_part,
        direction,
        to_at,
        device_no
    from parts
    union all
    select
        drive_at as mark_at,
        0 as is_part,
        null as direction,
        null as to_at,
        device_no
    from drives
),

counted as (
    select
        mark_at,
        is_part,
        direction,
        to_at,
        sum(1 - is_part) over until_now as drive_no,
        device_no
    from marks
    window
        until_now as (
            partition by device_no order by mark_at, is_part rows between unbounded preceding and current row
        )
),

linked as (
    select
        mark_at,
        direction,
        to_at,
        coalesce(
            direction <> lag(direction) over w
            or drive_no <> lag(drive_no) over w
            or {{ seconds_between('lag(to_at) over w', 'mark_at') }} > {{ var('session_pause_s') }},
            true
        ) as is_new,
        device_no
    from counted
    where is_part = 1
    window w as (partition by device_no order by mark_at, to_at, direction)
),

numbered as (
    select
        mark_at,
        direction,
        to_at,
        sum(case when is_new then 1 else 0 end) over (
            partition by device_no order by mark_at, to_at, direction
            rows between unbounded preceding and current row
        ) as session_no,
        device_no
    from linked
)

select
    numbered.session_no,
    parts.*
from parts
inner join numbered
    on
        parts.device_no = numbered.device_no and parts.from_at = numbered.mark_at
        and parts.to_at = numbered.to_at and parts.direction = numbered.direction
