{{ config(materialized='ephemeral', tags=['local']) }}
-- One row per BMS message, with what the car was doing (DOMAIN 5), the awake period and the fragment it belongs to,
-- and the charge and energy that moved since the message before. In a partition without BMS rows, one row per GPS
-- message. No threshold of duration is applied here, except that a standstill between two moving rows is driving.
with

bms as (
    select
        'bms' as source,
        recorded_at,
        case when not is_current_suspect then pack_current_a end as pack_current_a,
        case when not is_pack_voltage_suspect then pack_voltage_v end as pack_voltage_v,
        soc_pct,
        case when not is_speed_suspect then speed_kmh end as speed_kmh,
        odometer_km,
        charged_total_ah,
        discharged_total_ah,
        charged_total_kwh,
        discharged_total_kwh,
        plug_charged_total_kwh as plug_total_kwh,
        quick_charged_total_kwh as quick_total_kwh,
        cast(operating_time_s as double) as operating_s,
        case when not is_cell_suspect then cell_mean_mv end as cell_mean_mv,
        cast(cell_n + cell_sentinel_n + cell_placeholder_n + cell_unfit_n as integer) as cell_slot_count,
        case when not is_temperature_suspect then module_mean_c end as module_temp_c,
        module_max_c,
        ambient_c,
        coalesce(is_cable_connected, false) as is_cable_connected,
        coalesce(is_slow_port_connected, false) or coalesce(is_fast_port_connected, false)
        or coalesce(is_fast_relay_closed, false) as is_charge_flagged,
        coalesce(is_fast_port_connected, false) or coalesce(is_fast_relay_closed, false) as is_fast_flagged,
        coalesce(is_v2l, false) as is_v2l,
        coalesce(is_main_relay_closed, false) as is_relay_closed,
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
),

bms_partition as (
    select distinct
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
),

gps as (
    select
        'gps' as source,
        fixes.recorded_at,
        cast(null as double) as pack_current_a,
        cast(null as double) as pack_voltage_v,
        fixes.fuel_pct as soc_pct,
        case when not fixes.is_speed_suspect then fixes.speed_kmh end as speed_kmh,
        cast(null as double) as odometer_km,
        cast(null as double) as charged_total_ah,
        cast(null as double) as discharged_total_ah,
        cast(null as double) as charged_total_kwh,
        cast(null as double) as discharged_total_kwh,
        cast(null as double) as plug_total_kwh,
        cast(null as double) as quick_total_kwh,
        cast(null as double) as operating_s,
        cast(null as double) as cell_mean_mv,
        cast(null as integer) as cell_slot_count,
        cast(null as double) as module_temp_c,
        cast(null as double) as module_max_c,
        cast(null as double) as ambient_c,
        false as is_cable_connected,
        false as is_charge_flagged,
        false as is_fast_flagged,
        false as is_v2l,
        false as is_relay_closed,
        fixes.device_no,
        fixes.measured_month
    from {{ ref('stg_gps') }} as fixes
    left join bms_partition
        on
            fixes.device_no = bms_partition.device_no
            and fixes.measured_month = bms_partition.measured_month
    where bms_partition.device_no is null
),

messages as (
    select * from bms
    union all
    select * from gps
),

paired as (
    select
        *,
        lag(recorded_at) over w as message_before_at,
        lag(pack_current_a) over w as current_before_a,
        lag(pack_voltage_v) over w as voltage_before_v,
        {{ lag_known('speed_kmh') }} over w as speed_before_kmh,
        {{ lag_known('case when speed_kmh is not null then recorded_at end') }} over w as speed_before_at,
        lag(odometer_km) over w as odometer_before_km,
        {{ lag_known('soc_pct') }} over w as soc_before_pct,
        {{ lag_known('case when soc_pct is not null then recorded_at end') }} over w as soc_before_at,
        -- an odometer of whole kilometres ticks once in a minute
        max(case when odometer_km <> floor(odometer_km) then 1 end) over (partition by device_no, measured_month)
            as has_tenths
    from messages
    window w as ({{ in_time_order() }})
),

timed as (
    select
        *,
        {{ seconds_between('message_before_at', 'recorded_at') }} as interval_s,
        {{ seconds_between('speed_before_at', 'recorded_at') }} as speed_interval_s,
        {{ seconds_between('soc_before_at', 'recorded_at') }} as soc_interval_s
    from paired
),

judged as (
    select
        *,
        -- an odometer that ticks is a move too; a step that no car can drive is a fault of the odometer
        coalesce(speed_kmh >= {{ var('moving_min_kmh') }}, false)
        or coalesce(
            interval_s <= {{ var('logging_gap_s') }}
            and odometer_km > odometer_before_km
            and odometer_km - odometer_before_km
            <= {{ var('odometer_max_kmh') }} * interval_s / 3600
            + case when has_tenths = 1 then {{ var('moving_slack_km') }} else {{ var('moving_slack_whole_km') }} end,
            false
        ) as is_moving,
        is_cable_connected or is_charge_flagged or is_v2l as is_flagged
    from timed
),

based as (
    select
        *,
        case when is_moving then recorded_at end as moving_at,
        case
            when pack_current_a is null and speed_kmh is null and odometer_km is null then 'INVALID'
            when is_moving then 'DRIVE'
            when pack_current_a > {{ var('charge_current_min_a') }} then 'CHARGE'
            when is_v2l or (is_cable_connected and pack_current_a < -{{ var('v2l_current_min_a') }}) then 'V2L'
            when is_relay_closed then 'IDLE'
            else 'AWAKE'
        end as base_state
    from judged
),

-- the moves before and after each row, and what the row before was
neighbours as (
    select
        *,
        {{ lag_known('moving_at') }} over w as moved_before_at,
        {{ lead_known('moving_at') }} over w as moves_after_at,
        lag(base_state) over w as base_state_before,
        lag(is_flagged) over w as is_flagged_before
    from based
    window w as ({{ in_time_order() }})
),

-- the last move before the row before is not known here: a row that a standstill bridges has the same two moves
stated as (
    select
        *,
        case
            when
                not is_moving and not is_flagged
                and {{ seconds_between('moved_before_at', 'moves_after_at') }} <= {{ var('standstill_max_s') }}
                then 'DRIVE'
            else base_state
        end as state,
        case
            when
                base_state_before <> 'DRIVE' and not is_flagged_before
                and {{ seconds_between('moved_before_at', 'coalesce(moving_at, moves_after_at)') }}
                <= {{ var('standstill_max_s') }}
                then 'DRIVE'
            else base_state_before
        end as state_before
    from neighbours
),

metered as (
    select
        *,
        (coalesce(pack_voltage_v, voltage_before_v) + coalesce(voltage_before_v, pack_voltage_v)) / 2 as pair_voltage_v,
        case
            when pack_current_a is null or current_before_a is null then null
            when interval_s <= {{ var('integral_max_s') }} then interval_s
            when {{ is_bridged('interval_s', 'state', 'state_before', 'pack_current_a', 'current_before_a') }}
                then interval_s
        end as pair_s
    from stated
),

-- a steady charge that is written every few minutes is one awake period, as it is integrated throughout
woken as (
    select
        *,
        message_before_at is null or (interval_s > {{ var('logging_gap_s') }} and pair_s is null) as is_waking
    from metered
),

-- positive and negative part of a current that runs in a straight line from one message to the next
moved as (
    select
        *,
        case
            when pack_current_a * current_before_a < 0
                then power(greatest(pack_current_a, current_before_a), 2) / (2 * abs(pack_current_a - current_before_a))
            else greatest((pack_current_a + current_before_a) / 2, 0)
        end * pair_s / 3600 as charge_step_ah,
        case
            when pack_current_a * current_before_a < 0
                then power(least(pack_current_a, current_before_a), 2) / (2 * abs(pack_current_a - current_before_a))
            else greatest(-(pack_current_a + current_before_a) / 2, 0)
        end * pair_s / 3600 as discharge_step_ah
    from woken
)

select
    source,
    recorded_at,
    message_before_at,
    {{ kst_day('recorded_at') }} as service_date,
    state,
    is_waking,
    cast(sum(case when is_waking then 1 else 0 end) over w as bigint) as awake_no,
    max(case when is_waking then recorded_at end) over w as awake_from_at,
    cast(sum(
        case
            when
                is_waking or state <> state_before
                -- a charge is cut where its current is not known, so that every piece of it is integrated throughout
                or (state = 'CHARGE' and pair_s is null)
                or {{ kst_day('recorded_at') }} <> {{ kst_day('message_before_at') }}
                then 1
            else 0
        end
    ) over w as bigint) as fragment_no,
    interval_s,
    pair_s,
    charge_step_ah,
    discharge_step_ah,
    charge_step_ah * pair_voltage_v / 1000 as charge_step_kwh,
    discharge_step_ah * pair_voltage_v / 1000 as discharge_step_kwh,
    -- net charge since the partition's first message, as far as it is integrated
    cast(sum({{ fixed('charge_step_ah - discharge_step_ah') }}) over w as double) as integrated_ah,
    -- rows without a speed, or a SoC, between two that have one are bridged
    case
        when speed_interval_s <= {{ var('logging_gap_s') }}
            then (speed_kmh + speed_before_kmh) / 2 * speed_interval_s / 3600
    end as speed_step_km,
    not is_waking and soc_interval_s <= {{ var('bridge_max_s') }} and coalesce(soc_pct <> soc_before_pct, false)
        as is_soc_step,
    pack_current_a,
    pack_voltage_v,
    soc_pct,
    speed_kmh,
    odometer_km,
    charged_total_ah,
    discharged_total_ah,
    charged_total_kwh,
    discharged_total_kwh,
    plug_total_kwh,
    quick_total_kwh,
    operating_s,
    cell_mean_mv,
    cell_slot_count,
    module_temp_c,
    module_max_c,
    ambient_c,
    is_cable_connected,
    is_charge_flagged,
    is_fast_flagged,
    is_v2l,
    is_relay_closed,
    device_no,
    measured_month
from moved
window w as ({{ in_time_order() }} rows between unbounded preceding and current row)
