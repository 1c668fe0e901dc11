{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device and KST day, from the device's first day with rows to its last one: the energy of sessions and
-- trips cut at midnight, so that days add up to them. Days of a gated month are rows without figures; a day on which
-- the car could have charged, or did drive, without anybody metering it has no energy charged, or driven.
with

days as (
    select
        service_date,
        gated_by,
        unlogged_km,
        device_no,
        measured_month
    from {{ ref('fct_mileage_daily') }}
    where {{ devices_in_scope() }}
),

session_part as (
    select
        *,
        {{ short_hash(
            "device_no || '|session|' || cast(min(from_at) over (partition by device_no, session_no) as varchar)"
        ) }}
            as session_id
    from {{ ref('int_session_part') }}
),

sessions as (
    select * from {{ ref('fct_charging_session') }}
    where {{ devices_in_scope() }}
),

trip_part as (
    select * from {{ ref('int_trip_part') }}
),

trips as (
    select * from {{ ref('fct_trip') }}
    where {{ devices_in_scope() }}
),

fragments as (
    select * from {{ ref('int_stitched_fragment') }}
),

silences as (
    select * from {{ ref('int_silence') }}
    where not is_joint
),

-- the energy of each part of a session by the method its session was measured with
charged as (
    select
        sessions.mode,
        sessions.session_id,
        sessions.energy_kwh is not null as is_metered,
        session_part.order_no,
        session_part.from_at,
        session_part.to_at,
        session_part.from_date,
        session_part.to_date,
        case
            when sessions.energy_method like 'counter%' then session_part.counter_kwh
            when sessions.energy_method like 'integral%' then session_part.integral_kwh
        end
        -- what the session holds for the offset of the sensor, by the time that current flowed
        - coalesce(
            sessions.offset_kwh * session_part.charging_s
            / nullif(sum(session_part.charging_s) over (partition by sessions.device_no, sessions.session_id), 0),
            0e0
        ) as energy_kwh,
        sessions.device_no
    from session_part
    inner join sessions
        on session_part.device_no = sessions.device_no and session_part.session_id = sessions.session_id
),

-- a silence is cut at midnight by time; what a session took in it is taken to have come evenly
cut as (
    select
        charged.mode,
        charged.is_metered,
        days.service_date,
        charged.energy_kwh,
        charged.session_id,
        charged.from_at,
        {{ seconds_between(
            'greatest(charged.from_at, cast(days.service_date as timestamp))',
            'least(charged.to_at, cast(' ~ add_days('days.service_date', 1) ~ ' as timestamp))'
        ) }} as part_s,
        charged.device_no
    from charged
    inner join days
        on
            charged.device_no = days.device_no
            and days.service_date between charged.from_date and charged.to_date
    where charged.from_date < charged.to_date
),

charged_day as (
    select
        mode,
        is_metered,
        from_date as service_date,
        energy_kwh,
        device_no
    from charged
    where from_date = to_date
    union all
    select
        mode,
        is_metered,
        service_date,
        energy_kwh * part_s / sum(part_s) over (partition by device_no, session_id, from_at) as energy_kwh,
        device_no
    from cut
),

charge_sums as (
    select
        service_date,
        {{ fixed_sum("case when mode <> 'V2L' then energy_kwh end") }} as charged_kwh,
        {{ fixed_sum("case when mode = 'DC' then energy_kwh end") }} as charged_dc_kwh,
        {{ fixed_sum("case when mode = 'V2L' then energy_kwh end") }} as v2l_kwh,
        bool_or(is_metered) as is_metered,
        device_no
    from charged_day
    group by device_no, service_date
),

-- what would have shown a charge: the current, or the energy counter; and a drive: the speed, or the odometer
meter_month as (
    select
        bool_or(current_max_a is not null or (is_charged_kwh_alive and charged_step_kwh is not null)) as is_metered,
        bool_or(has_speed or odometer_to_km is not null) as is_motion_seen,
        device_no,
        measured_month
    from fragments
    group by device_no, measured_month
),

meter as (
    select
        bool_or(is_metered) as is_metered,
        bool_or(is_motion_seen) as is_motion_seen,
        device_no
    from meter_month
    group by device_no
),

started as (
    select
        service_date,
        count(*) filter (where mode <> 'V2L') as session_count,
        count(*) filter (where mode <> 'V2L' and is_inferred) as inferred_session_count,
        count(*) filter (where mode <> 'V2L' and energy_kwh is null) as unmetered_session_count,
        device_no
    from sessions
    group by device_no, service_date
),

-- a day is long enough for counters even where its trips are not
trip_energy as (
    select
        trip_part.service_date,
        trip_part.order_no,
        trips.trip_id,
        trips.energy_net_kwh is not null or trips.energy_counter_kwh is not null as is_measured,
        case when trips.energy_method like 'integral%' then trip_part.discharge_kwh else trip_part.counter_out_kwh end
            as out_kwh,
        case when trips.energy_method like 'integral%' then trip_part.charge_kwh else trip_part.counter_regen_kwh end
            as regen_kwh,
        trip_part.device_no
    from trip_part
    inner join trips on trip_part.device_no = trips.device_no and trip_part.trip_id = trips.trip_id
),

driven as (
    select
        service_date,
        case when bool_and(is_measured) then {{ fixed_sum('out_kwh') }} end as out_kwh,
        case when bool_and(is_measured) then {{ fixed_sum('regen_kwh') }} end as regen_kwh,
        count(distinct trip_id) as trip_count,
        device_no
    from trip_energy
    group by device_no, service_date
),

-- silences cut at midnight by time; one inside a trip is the trip's, and what a silence charged is no recuperation
silence_part as (
    select
        {{ kst_day('days.on_date') }} as service_date,
        {{ seconds_between(
            'greatest(silences.from_at, cast(days.on_date as timestamp))',
            'least(silences.to_at, cast(' ~ add_days('days.on_date', 1) ~ ' as timestamp))'
        ) }} / nullif(silences.silence_s, 0) as day_share,
        silences.has_moved,
        silences.charge_evidence,
        silences.odometer_step_km,
        crossed.from_at is not null as is_of_trip,
        silences.discharged_step_kwh as out_kwh,
        case
            when silences.charge_evidence is null then silences.charged_step_kwh
            when silences.charge_evidence = 'plug counter' then silences.charged_step_kwh - silences.plug_step_kwh
        end as regen_kwh,
        silences.device_no
    from silences
    left join trip_part as crossed
        on silences.device_no = crossed.device_no and silences.to_at = crossed.from_at and crossed.silence_s > 0
    {{ cross_join_days(kst_day('silences.from_at'), kst_day('silences.to_at')) }}
    where not silences.is_over_gate
),

driven_silently as (
    select
        service_date,
        {{ fixed_sum('day_share * odometer_step_km') }} as known_km,
        bool_and(is_of_trip or (out_kwh is not null and regen_kwh is not null)) as is_known,
        {{ fixed_sum('case when not is_of_trip then day_share * out_kwh end') }} as out_kwh,
        {{ fixed_sum('case when not is_of_trip then day_share * regen_kwh end') }} as regen_kwh,
        device_no
    from silence_part
    where has_moved
    group by device_no, service_date
),

-- neither driven nor charged in: what the counters lost
slept as (
    select
        service_date,
        {{ fixed_sum('day_share * (out_kwh - regen_kwh)') }} as energy_kwh,
        device_no
    from silence_part
    where not has_moved and charge_evidence is null and not is_of_trip
    group by device_no, service_date
),

used as (
    select
        order_no,
        device_no
    from trip_energy
    union
    select
        order_no,
        device_no
    from charged
    where order_no is not null
),

-- awake, neither on a trip nor charging
rested as (
    select
        fragments.service_date,
        -- rows too far apart for an integral, or without a voltage: the counters
        {{ fixed_sum(
            'case when fragments.energy_s >= ' ~ var('standing_integral_share_min')
            ~ ' * (fragments.integrated_s + fragments.lost_s) then fragments.discharge_kwh - fragments.charge_kwh'
            ~ ' when fragments.is_charged_kwh_alive then fragments.discharged_step_kwh - fragments.charged_step_kwh end'
        ) }} as energy_kwh,
        fragments.device_no
    from fragments
    left join used on fragments.device_no = used.device_no and fragments.order_no = used.order_no
    where used.order_no is null
    group by fragments.device_no, fragments.service_date
),

-- a day without sessions took nothing where the pack was metered; a month without rows is judged as the others are
metered as (
    select
        days.*,
        charge_sums.charged_kwh,
        charge_sums.charged_dc_kwh,
        charge_sums.v2l_kwh,
        days.gated_by is null
        and coalesce(charge_sums.is_metered, meter_month.is_metered, meter.is_metered, false) as is_metered,
        days.gated_by is null and coalesce(meter_month.is_motion_seen, meter.is_motion_seen, false) as is_motion_seen,
        case
            when days.gated_by is not null then concat('gated: ', days.gated_by)
            when not coalesce(meter_month.is_metered, meter.is_metered, false)
                then 'neither current nor energy counter'
            when not coalesce(meter_month.is_motion_seen, meter.is_motion_seen, false)
                then 'neither speed nor odometer'
            when driven.trip_count > 0 and driven.out_kwh is null then 'a trip without energy'
            when not driven_silently.is_known then 'a drive in a silence without counters'
            when
                coalesce(days.unlogged_km, 0e0) - coalesce(driven_silently.known_km, 0e0)
                >= {{ var('unlogged_open_max_km') }}
                then 'unlogged kilometres without counters'
        end as driven_missing_because,
        driven.trip_count,
        coalesce(driven.out_kwh, 0e0) + coalesce(driven_silently.out_kwh, 0e0) as driven_out_kwh,
        coalesce(driven.regen_kwh, 0e0) + coalesce(driven_silently.regen_kwh, 0e0) as driven_regen_kwh
    from days
    left join charge_sums on days.device_no = charge_sums.device_no and days.service_date = charge_sums.service_date
    left join meter_month on days.device_no = meter_month.device_no and days.measured_month = meter_month.measured_month
    left join meter on days.device_no = meter.device_no
    left join driven on days.device_no = driven.device_no and days.service_date = driven.service_date
    left join driven_silently
        on days.device_no = driven_silently.device_no and days.service_date = driven_silently.service_date
)

select
    metered.service_date,
    metered.gated_by,
    case when metered.is_metered then coalesce(metered.charged_kwh, 0e0) end as charged_kwh,
    case when metered.is_metered then coalesce(metered.charged_dc_kwh, 0e0) end as charged_dc_kwh,
    case when metered.is_metered then coalesce(metered.v2l_kwh, 0e0) end as v2l_kwh,
    case when metered.driven_missing_because is null then metered.driven_out_kwh - metered.driven_regen_kwh end
        as driven_net_kwh,
    case when metered.driven_missing_because is null then metered.driven_regen_kwh end as regen_kwh,
    metered.driven_missing_because,
    -- where no drive would have been seen, what was awake may have been driven
    case
        when metered.is_motion_seen and (rested.energy_kwh is not null or slept.energy_kwh is not null)
            then coalesce(rested.energy_kwh, 0e0) + coalesce(slept.energy_kwh, 0e0)
    end as parked_kwh,
    case when metered.gated_by is null then cast(coalesce(started.session_count, 0) as integer) end as session_count,
    case when metered.gated_by is null then cast(coalesce(started.inferred_session_count, 0) as integer) end
        as inferred_session_count,
    case when metered.gated_by is null then cast(coalesce(started.unmetered_session_count, 0) as integer) end
        as unmetered_session_count,
    case when metered.gated_by is null then cast(coalesce(metered.trip_count, 0) as integer) end as trip_count,
    metered.device_no,
    metered.measured_month
from metered
left join started on metered.device_no = started.device_no and metered.service_date = started.service_date
left join rested on metered.device_no = rested.device_no and metered.service_date = rested.service_date
left join slept on metered.device_no = slept.device_no and metered.service_date = slept.service_date
