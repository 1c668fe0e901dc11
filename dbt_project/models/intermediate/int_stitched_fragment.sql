{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per fragment of a device in scope, all its months in one order, gated months left out, with the pair of
-- messages over the month's edge given to the fragment it leads into, as within a month.
with

fragments as (
    select * from {{ ref('int_fragment') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

-- a counter that never moves is no counter
counters as (
    select
        max(charged_total_to_ah) > min(charged_total_from_ah) as is_charged_ah_alive,
        max(charged_total_to_kwh) > min(charged_total_from_kwh) as is_charged_kwh_alive,
        device_no
    from fragments
    group by device_no
),

-- only a joint: what happened over a silence is no fragment's
joint as (
    select * from {{ ref('int_silence') }}
    where is_joint
),

counter_life as (
    select
        awake_no,
        awake_max_ah,
        awake_max_kwh,
        device_no,
        measured_month
    from {{ ref('int_counter_life') }}
    where {{ devices_in_scope() }}
),

joined as (
    select
        fragments.*,
        counter_life.awake_max_ah,
        counter_life.awake_max_kwh,
        counters.is_charged_ah_alive,
        counters.is_charged_kwh_alive,
        joint.from_at as joint_from_at,
        joint.silence_s as joint_s,
        case
            when
                joint.silence_s <= {{ var('integral_max_s') }}
                or {{ is_bridged(
                    'joint.silence_s', 'fragments.state', 'joint.state_before', 'joint.current_after_a',
                    'joint.current_before_a',
                ) }}
                then (joint.current_before_a + joint.current_after_a) / 2 * joint.silence_s / 3600
        end as joint_ah,
        coalesce(joint.voltage_before_v, fragments.voltage_first_v) as joint_v,
        joint.charged_step_ah as joint_charged_ah,
        joint.discharged_step_ah as joint_discharged_ah,
        joint.charged_step_kwh as joint_charged_kwh,
        joint.discharged_step_kwh as joint_discharged_kwh
    from fragments
    inner join counters on fragments.device_no = counters.device_no
    inner join counter_life
        on
            fragments.device_no = counter_life.device_no
            and fragments.measured_month = counter_life.measured_month
            and fragments.awake_no = counter_life.awake_no
    left join joint
        on
            fragments.is_first_of_period
            and fragments.device_no = joint.device_no and fragments.measured_month = joint.next_month
            and fragments.awake_no = joint.next_awake_no
)

select
    row_number() over (partition by device_no order by from_at, measured_month, fragment_no) as order_no,
    source,
    fragment_no,
    awake_no,
    service_date,
    state,
    from_at,
    coalesce(joint_from_at, from_at) as since_at,
    to_at,
    duration_s,
    interval_median_s,
    is_first_of_period and joint_s is null as is_after_silence,
    message_count,
    soc_first_pct,
    soc_last_pct,
    step_first_at,
    step_first_pct,
    step_first_ah + coalesce(joint_ah, 0e0) as step_first_ah,
    step_last_at,
    step_last_pct,
    step_last_ah + coalesce(joint_ah, 0e0) as step_last_ah,
    charge_ah + greatest(coalesce(joint_ah, 0e0), 0e0) as charge_ah,
    discharge_ah + greatest(-coalesce(joint_ah, 0e0), 0e0) as discharge_ah,
    charge_kwh + greatest(coalesce(joint_ah * joint_v / 1000, 0e0), 0e0) as charge_kwh,
    discharge_kwh + greatest(-coalesce(joint_ah * joint_v / 1000, 0e0), 0e0) as discharge_kwh,
    integrated_s + case when joint_ah is not null then joint_s else 0e0 end as integrated_s,
    energy_s + case when joint_ah is not null and joint_v is not null then joint_s else 0e0 end as energy_s,
    bridged_s + case when joint_ah is not null and joint_s > {{ var('integral_max_s') }} then joint_s else 0e0 end
        as bridged_s,
    lost_s + case when joint_ah is null then coalesce(joint_s, 0e0) else 0e0 end as lost_s,
    -- of a counter that began anew the step is unknown
    {% for name, unit in [
        ('charged', 'ah'), ('discharged', 'ah'), ('charged', 'kwh'), ('discharged', 'kwh')
    ] %}
    {%- set step = name ~ '_total_to_' ~ unit ~ ' - ' ~ name ~ '_total_from_' ~ unit %}
    {%- set step_after = name ~ '_total_after_' ~ unit ~ ' - ' ~ name ~ '_total_from_' ~ unit %}
    case
        when {{ step }} between 0 and awake_max_{{ unit }}
            then case
                when {{ step_after }} between {{ step }} and awake_max_{{ unit }} then {{ step_after }} else {{ step }}
            end
    end + coalesce(joint_{{ name }}_{{ unit }}, 0e0) as {{ name }}_step_{{ unit }},
    {% endfor %}
    is_charged_ah_alive,
    is_charged_kwh_alive,
    {% for name in ['plug', 'quick'] %}
    case
        when {{ name }}_total_to_kwh - {{ name }}_total_from_kwh between 0 and awake_max_kwh
            then {{ name }}_total_to_kwh - {{ name }}_total_from_kwh
    end as {{ name }}_step_kwh,
    {% endfor %}
    odometer_from_km,
    odometer_to_km,
    speed_km,
    has_speed,
    current_first_a,
    current_last_a,
    current_max_a,
    power_max_kw,
    fast_s,
    power_min_kw,
    module_temp_first_c,
    module_temp_max_c,
    module_temp_mean_c,
    ambient_mean_c,
    ambient_n,
    cable_count,
    charge_flag_count,
    fast_flag_count,
    v2l_flag_count,
    lat,
    lng,
    device_no,
    measured_month
from joined
