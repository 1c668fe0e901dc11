{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device and month with awake periods or silences: what standing costs. Parked: silences in which the car
-- neither charged nor drove, at most {{ var('silence_known_max_h') }} h long; their hours are cut at the month's end,
-- their loss belongs to the month they begin in. Idle: relay closed, standing, rows arrive. Stitched.
with

silences as (
    select * from {{ ref('int_silence') }}
),

silence_day as (
    select * from {{ ref('int_silence_day') }}
),

fragments as (
    select * from {{ ref('int_fragment') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

gated_month as (
    select * from {{ ref('int_gated_month') }}
),

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

parked as (
    select
        {{ fixed_sum('part_h') }} as parked_h,
        device_no,
        measured_month
    from silence_day
    where not is_joint and not is_long and not is_driven and not is_charged
    group by device_no, measured_month
),

lost as (
    select
        soc_before_pct - soc_after_pct as lost_pct,
        silence_s / 86400 as parked_days,
        device_no,
        {{ month_of('from_at') }} as measured_month
    from silences
    where
        soc_before_pct is not null and soc_after_pct is not null
        and not has_moved and not is_reset and charge_evidence is null
        and silence_s between {{ var('parked_min_h') }} * 3600e0 and {{ var('silence_known_max_h') }} * 3600e0
),

-- loss = rate x days: ratio of sums, with the scatter of single silences about it
loss as (
    select
        count(*) as n,
        {{ fixed_sum('lost_pct') }} as lost_pct,
        {{ fixed_sum('parked_days') }} as parked_days,
        {{ fixed_sum('lost_pct * lost_pct') }} as lost_square,
        {{ fixed_sum('lost_pct * parked_days') }} as lost_days,
        {{ fixed_sum('parked_days * parked_days') }} as days_square,
        device_no,
        measured_month
    from lost
    group by device_no, measured_month
),

idle as (
    select
        {{ fixed_sum('duration_s') }} / 3600 as idle_h,
        {{ fixed_sum('discharge_kwh - charge_kwh') }} as idle_kwh,
        {{ fixed_sum('energy_s') }} as energy_s,
        {{ fixed_sum('integrated_s + lost_s') }} as seen_s,
        device_no,
        measured_month
    from fragments
    where state = 'IDLE' and not {{ is_unmetered_charge() }}
    group by device_no, measured_month
),

-- a relay that never closes while rows arrive is a channel that is not delivered; without speed and odometer a car that
-- drives looks like one that stands
relay as (
    select
        sum(relay_count) > 0 as is_delivered,
        bool_or(has_speed or odometer_to_km is not null) as is_motion_seen,
        device_no
    from fragments
    group by device_no
),

awake_month as (
    select
        {{ fixed_sum('duration_s') }} / 3600 as awake_h,
        device_no,
        measured_month
    from fragments
    group by device_no, measured_month
),

months as (
    select
        device_no,
        measured_month
    from awake_month
    union
    select
        device_no,
        measured_month
    from silence_day
    union
    select
        device_no,
        measured_month
    from gated_month
),

joined as (
    select
        months.device_no,
        months.measured_month,
        gated_month.gated_by,
        coalesce(device_setting.chemistry = 'LFP', false) as is_flat,
        -- a rest also takes back what an offset of the current let the SoC drift while the car was awake
        100 * {{ var('current_offset_sd_a') }} * coalesce(awake_month.awake_h, 0e0)
        / nullif(device_setting.capacity_nominal_ah, 0) / nullif(loss.parked_days, 0) as drift_sd,
        coalesce(parked.parked_h, 0e0) as parked_h,
        loss.lost_pct / nullif(loss.parked_days, 0) as loss_rate,
        coalesce(loss.n, 0) as n,
        loss.lost_pct,
        loss.parked_days,
        loss.lost_square,
        loss.lost_days,
        loss.days_square,
        coalesce(relay.is_delivered, false) as has_relay,
        coalesce(relay.is_motion_seen, false) as is_motion_seen,
        case when relay.is_delivered and relay.is_motion_seen then coalesce(idle.idle_h, 0e0) end as idle_h,
        case
            when not relay.is_delivered or not relay.is_motion_seen then null
            when idle.idle_h is null and awake_month.device_no is not null then 0e0
            -- steady and small: what is integrated stands for all of it, when it is most of it
            when idle.energy_s >= {{ var('standing_integral_share_min') }} * idle.seen_s
                then idle.idle_kwh * idle.seen_s / nullif(idle.energy_s, 0)
        end as idle_kwh
    from months
    left join gated_month
        on months.device_no = gated_month.device_no and months.measured_month = gated_month.measured_month
    left join awake_month
        on months.device_no = awake_month.device_no and months.measured_month = awake_month.measured_month
    left join relay on months.device_no = relay.device_no
    left join device_setting on months.device_no = device_setting.device_no
    left join parked on months.device_no = parked.device_no and months.measured_month = parked.measured_month
    left join loss on months.device_no = loss.device_no and months.measured_month = loss.measured_month
    left join idle on months.device_no = idle.device_no and months.measured_month = idle.measured_month
),

erred as (
    select
        *,
        case
            when n >= {{ var('parked_min_n') }}
                then sqrt(
                    power({{ student_t('n - 1e0') }}, 2)
                    * greatest(lost_square - 2 * loss_rate * lost_days + loss_rate * loss_rate * days_square, 0e0)
                    * n / (n - 1e0) / nullif(parked_days * parked_days, 0)
                    + power({{ var('interval_z') }} * drift_sd, 2)
                )
        end as loss_half,
        n >= {{ var('parked_min_n') }} and not is_flat as is_enough
    from joined
)

select
    case when gated_by is null then parked_h end as parked_h,
    case when is_enough then loss_rate end as soc_lost_pct_per_day,
    case when is_enough then loss_rate - loss_half end as soc_lost_lo_pct_per_day,
    case when is_enough then loss_rate + loss_half end as soc_lost_hi_pct_per_day,
    cast(n as bigint) as n,
    case when gated_by is null then idle_h end as idle_h,
    case when gated_by is null then idle_kwh end as idle_kwh,
    case
        when gated_by is not null then concat('gated: ', gated_by)
        else nullif(
            concat_ws(
                '; ',
                case
                    when is_flat then 'loss: not identifiable on the plateau of an LFP pack'
                    when not is_enough then 'loss: too few silences with a SoC on both sides'
                    when drift_sd is null then 'interval of the loss: nominal capacity unknown'
                end,
                case
                    when not has_relay then 'idle: the relay is not delivered'
                    when not is_motion_seen then 'idle: neither speed nor odometer'
                    when idle_kwh is null then 'idle energy: current or voltage missing, or sampled too slowly'
                end
            ),
            ''
        )
    end as missing_because,
    device_no,
    measured_month
from erred
