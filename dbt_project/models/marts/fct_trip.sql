{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per trip: from its first move to its last one, standstills up to 5 minutes and silences up to 10 minutes
-- inside. It belongs to the KST day and month of its start.
with

parts as (
    select * from {{ ref('int_trip_part') }}
),

counter_trust as (
    select * from {{ ref('int_counter_trust') }}
),

sums as (
    select
        trip_id,
        min(from_at) as started_at,
        max(to_at) as ended_at,
        min(source) as source,
        min_by(service_date, from_at) as service_date,
        {{ fixed_sum('silence_s') }} as silence_s,
        {{ fixed_sum('integrated_s') }} as integrated_s,
        {{ fixed_sum('lost_s') }} as lost_s,
        max_by(interval_median_s, message_count * 100000 - order_no % 100000)
        filter (where interval_median_s is not null)
            as interval_median_s,
        {{ first_of('odometer_from_km', 'from_at') }} as odometer_from_km,
        {{ last_of('odometer_to_km', 'to_at') }} as odometer_to_km,
        {{ fixed_sum('speed_km') }} as speed_km,
        {{ first_of('soc_first_pct', 'from_at') }} as soc_start_pct,
        {{ last_of('soc_last_pct', 'to_at') }} as soc_end_pct,
        {{ fixed_sum('energy_s') }} as energy_s,
        {{ fixed_sum('discharge_kwh') }} as integral_out_kwh,
        {{ fixed_sum('charge_kwh') }} as integral_regen_kwh,
        case when bool_and(counter_out_kwh is not null) then {{ fixed_sum('counter_out_kwh') }} end as counter_out_kwh,
        case when bool_and(counter_regen_kwh is not null) then {{ fixed_sum('counter_regen_kwh') }} end
            as counter_regen_kwh,
        {{ fixed_sum('ambient_mean_c * ambient_n') }} / nullif(sum(ambient_n), 0) as ambient_mean_c,
        cast(sum(message_count) as bigint) as message_count,
        device_no
    from parts
    group by device_no, trip_id
),

measured as (
    select
        *,
        {{ seconds_between('started_at', 'ended_at') }} as duration_s,
        odometer_to_km - odometer_from_km as odometer_km,
        bool_and(odometer_from_km = floor(odometer_from_km) and odometer_to_km = floor(odometer_to_km))
            over (partition by device_no) as is_whole_km
    from sums
),

-- an odometer that fell, jumped or stood still over the trip says nothing of it
distanced as (
    select
        *,
        coalesce(
            odometer_km >= 0
            and odometer_km <= {{ var('odometer_max_kmh') }} * duration_s / 3600 + {{ var('odometer_slack_km') }}
            and not (odometer_km < {{ var('trip_min_km') }} and speed_km > {{ var('odometer_frozen_km') }})
            and not (
                silence_s = 0 and speed_km > 0 and interval_median_s <= {{ var('speed_dense_s') }}
                and abs(odometer_km - speed_km)
                > greatest({{ var('odometer_slack_km') }}, {{ var('witness_match_share') }} * speed_km)
            )
            -- of whole kilometres it is coarser than the speed
            and not (
                silence_s = 0 and speed_km > 0 and interval_median_s <= {{ var('speed_dense_s') }}
                and is_whole_km and abs(odometer_km - speed_km) <= {{ var('moving_slack_whole_km') }}
            ),
            false
        ) as is_odometer_good
    from measured
),

trips as (
    select
        *,
        case
            when is_odometer_good then odometer_km
            when speed_km > 0 then speed_km
        end as distance_km,
        case
            when is_odometer_good then 'odometer'
            when speed_km > 0 then case when source = 'gps' then 'gps' else 'speed' end
        end as distance_method,
        coalesce(
            interval_median_s <= {{ var('trip_integral_max_s') }}
            and energy_s > 0
            and energy_s >= (1 - {{ var('trip_lost_share_max') }}) * (integrated_s + lost_s + silence_s),
            false
        ) as has_integral,
        coalesce(
            counter_out_kwh is not null and counter_regen_kwh is not null
            and not (
                counter_out_kwh < {{ var('counter_step_kwh') }}
                and integral_out_kwh > {{ var('counter_still_kwh') }}
            ),
            false
        ) as has_counters
    from distanced
),

-- counters that failed their audit are not believed where there is anything else
audited as (
    select
        trips.*,
        coalesce(counter_trust.is_failed, false) as is_counter_failed
    from trips
    left join counter_trust
        on
            trips.device_no = counter_trust.device_no
            and {{ month_of('trips.service_date') }} = counter_trust.measured_month
),

methods as (
    select
        *,
        case
            when is_counter_failed and has_integral then 'integral, counter failed its audit'
            when is_counter_failed and has_counters and distance_km >= {{ var('trip_counter_min_km') }}
                then 'counter, failed its audit'
            -- the integral lies within the resolution of the counters, and is finer
            when
                has_integral and has_counters
                and abs(counter_out_kwh - counter_regen_kwh - (integral_out_kwh - integral_regen_kwh))
                <= {{ var('counter_agrees_kwh') }}
                then 'integral, counter agrees'
            when has_counters and distance_km >= {{ var('trip_counter_min_km') }} then 'counter'
            when has_integral then 'integral'
            when has_counters then 'none: too short for counters'
            when source = 'gps' then 'none: no current'
            when
                integrated_s = 0 and lost_s > 0 and interval_median_s <= {{ var('integral_max_s') }}
                then 'none: no current'
            when energy_s < (1 - {{ var('trip_lost_share_max') }}) * integrated_s
                then 'none: no voltage and no counters'
            when interval_median_s <= {{ var('trip_integral_max_s') }} then 'none: no counters and rows lost'
            else 'none: no counters and rows too far apart'
        end as energy_method
    from audited
    where distance_km >= {{ var('trip_min_km') }}
)

select
    trip_id,
    service_date,
    started_at,
    ended_at,
    duration_s,
    distance_km,
    distance_method,
    case
        when energy_method like 'counter%' then counter_out_kwh
        when energy_method like 'integral%' then integral_out_kwh
    end as energy_out_kwh,
    case
        when energy_method like 'counter%' then counter_regen_kwh
        when energy_method like 'integral%' then integral_regen_kwh
    end as energy_regen_kwh,
    case
        when energy_method like 'counter%' then counter_out_kwh - counter_regen_kwh
        when energy_method like 'integral%' then integral_out_kwh - integral_regen_kwh
    end as energy_net_kwh,
    energy_method,
    case when has_counters then counter_out_kwh - counter_regen_kwh end as energy_counter_kwh,
    case when has_counters then counter_regen_kwh end as regen_counter_kwh,
    case when has_integral then integral_out_kwh - integral_regen_kwh end as energy_integral_kwh,
    case
        when has_integral and has_counters
            then
                100 * (counter_out_kwh - counter_regen_kwh - (integral_out_kwh - integral_regen_kwh))
                / nullif(integral_out_kwh - integral_regen_kwh, 0)
    end as disagreement_pct,
    greatest(0e0, 1 - silence_s / nullif(duration_s, 0)) as logged_share,
    soc_start_pct,
    soc_end_pct,
    ambient_mean_c,
    distance_km / nullif(duration_s, 0) * 3600 as speed_mean_kmh,
    interval_median_s,
    message_count,
    device_no,
    {{ month_of('service_date') }} as measured_month
from methods
