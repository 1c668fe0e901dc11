{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per silence: what lies between two awake periods of a device in scope, whatever months they are of, with what
-- SoC, counters and odometer say of it. Gated months are left out: they are part of a silence, and what was charged or
-- taken in one is not known of the silence. A row whose gap is no longer than a logging gap is no silence but a joint:
-- the two periods were cut by the month's edge.
{%- set counters = [
    ('charged_total', 'ah'), ('discharged_total', 'ah'), ('charged_total', 'kwh'), ('discharged_total', 'kwh'),
    ('plug_total', 'kwh'), ('quick_total', 'kwh'),
] %}
with

good_periods as (
    select * from {{ ref('int_awake_period') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

good_months as (
    select distinct
        device_no,
        measured_month
    from good_periods
),

gates_before as (
    select
        count(distinct gate.measured_month) as gate_count,
        months.device_no,
        months.measured_month
    from good_months as months
    inner join {{ source('ops', 'partition_gate') }} as gate
        on months.device_no = gate.device_no and months.measured_month > gate.measured_month
    group by months.device_no, months.measured_month
),

counter_life as (
    select
        awake_no,
        is_reset_before,
        silence_max_ah,
        silence_max_kwh,
        device_no,
        measured_month
    from {{ ref('int_counter_life') }}
    where {{ devices_in_scope() }}
),

periods as (
    select
        good_periods.*,
        coalesce(gates_before.gate_count, 0) as gate_count,
        counter_life.is_reset_before,
        counter_life.silence_max_ah,
        counter_life.silence_max_kwh
    from good_periods
    inner join counter_life
        on
            good_periods.device_no = counter_life.device_no
            and good_periods.measured_month = counter_life.measured_month
            and good_periods.awake_no = counter_life.awake_no
    left join gates_before
        on
            good_periods.device_no = gates_before.device_no
            and good_periods.measured_month = gates_before.measured_month
),

-- a counter that never moves is no counter
alive as (
    select
        {%- for name, unit in counters %}
        max({{ name }}_last_{{ unit }}) > min({{ name }}_first_{{ unit }}) as is_{{ name }}_{{ unit }}_alive,
        {%- endfor %}
        device_no
    from periods
    group by device_no
),

paired as (
    select
        lag(to_at) over w as from_at,
        from_at as to_at,
        awake_no as next_awake_no,
        measured_month as next_month,
        lag(awake_no) over w as before_awake_no,
        lag(measured_month) over w as before_month,
        lag(state_last) over w as state_before,
        state_first as state_after,
        lag(soc_last_pct) over w as soc_before_pct,
        soc_first_pct as soc_after_pct,
        lag(current_last_a) over w as current_before_a,
        current_first_a as current_after_a,
        lag(pack_voltage_last_v) over w as voltage_before_v,
        lag(lat_last) over w as lat_before,
        lag(lng_last) over w as lng_before,
        lat_first as lat_after,
        lng_first as lng_after,
        lag(module_temp_last_c) over w as temp_before_c,
        gate_count > lag(gate_count) over w as is_over_gate,
        is_reset_before as is_reset,
        -- of another pack, or of a counter that began anew, nothing can be said; nor of a step that no car makes
        {%- for name, unit in counters %}
        case
            when
                not is_reset_before
                and gate_count = lag(gate_count) over w
                and {{ name }}_first_{{ unit }} - lag({{ name }}_last_{{ unit }}) over w
                between 0 and silence_max_{{ unit }}
                then {{ name }}_first_{{ unit }} - lag({{ name }}_last_{{ unit }}) over w
        end as {{ name }}_step_{{ unit }},
        {%- endfor %}
        odometer_first_km - lag(odometer_last_km) over w as odometer_step_km,
        device_no
    from periods
    window w as (partition by device_no order by from_at, measured_month, awake_no)
),

told as (
    select
        {%- for name, unit in counters %}
        alive.is_{{ name }}_{{ unit }}_alive,
        {%- endfor %}
        {{ seconds_between('paired.from_at', 'paired.to_at') }} as silence_s,
        paired.*
    from paired
    inner join alive on paired.device_no = alive.device_no
    where paired.from_at is not null
),

measured as (
    select
        from_at,
        to_at,
        silence_s,
        next_awake_no,
        next_month,
        before_awake_no,
        before_month,
        state_before,
        state_after,
        soc_before_pct,
        soc_after_pct,
        soc_after_pct - soc_before_pct as soc_step_pct,
        current_before_a,
        current_after_a,
        voltage_before_v,
        lat_before,
        lng_before,
        lat_after,
        lng_after,
        temp_before_c,
        case when is_charged_total_ah_alive then charged_total_step_ah end as charged_step_ah,
        case when is_discharged_total_ah_alive then discharged_total_step_ah end as discharged_step_ah,
        case when is_charged_total_kwh_alive then charged_total_step_kwh end as charged_step_kwh,
        case when is_discharged_total_kwh_alive then discharged_total_step_kwh end as discharged_step_kwh,
        case when is_plug_total_kwh_alive then plug_total_step_kwh end as plug_step_kwh,
        case when is_quick_total_kwh_alive then quick_total_step_kwh end as quick_step_kwh,
        -- without an odometer the car may have been driven, and what rose may have been recuperation: the net counts
        case when is_charged_total_kwh_alive then charged_total_step_kwh end
        - case when odometer_step_km is null then coalesce(discharged_total_step_kwh, 0e0) else 0e0 end
            as charged_in_kwh,
        case when is_charged_total_ah_alive then charged_total_step_ah end
        - case when odometer_step_km is null then coalesce(discharged_total_step_ah, 0e0) else 0e0 end
            as charged_in_ah,
        odometer_step_km,
        is_over_gate,
        silence_s <= {{ var('logging_gap_s') }} or {{ is_bridged(
            'silence_s', 'state_after', 'state_before', 'current_after_a', 'current_before_a'
        ) }} as is_joint,
        is_reset,
        coalesce(odometer_step_km >= {{ var('silence_moved_km') }}, false) as has_moved,
        device_no
    from told
)

select
    *,
    -- counters decide where there are any: a BMS that re-anchors its SoC over a rest lets it rise without a charge
    case
        -- a SoC on either side of another pack is no rise
        when is_joint or is_over_gate or is_reset then null
        when plug_step_kwh >= {{ var('inferred_min_kwh') }} then 'plug counter'
        -- while it drove, only a plug counter tells charge from recuperation; some count fast charging alone
        when plug_step_kwh is not null and (has_moved or coalesce(charged_step_kwh, charged_step_ah) is null) then null
        when charged_step_kwh is not null and not has_moved
            then case when charged_in_kwh >= {{ var('inferred_min_kwh') }} then 'charge counter' end
        when charged_step_ah is not null and not has_moved
            then case when charged_in_ah >= {{ var('inferred_min_ah') }} then 'charge counter' end
        when soc_step_pct >= {{ var('inferred_min_soc_pct') }} then 'SoC'
    end as charge_evidence
from measured
