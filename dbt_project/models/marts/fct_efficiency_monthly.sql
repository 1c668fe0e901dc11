{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device, month, band kind (all, ambient, speed, season) and band: what the trips that began in the month
-- took from the pack per distance. Ratio of sums over the trips whose energy is known; one too short for an energy of
-- its own by counters counts with what they say: their steps, lost in one trip, add up over many. Stitched.
with

trips as (
    select
        trip.device_no,
        trip.measured_month,
        trip.distance_km,
        trip.speed_mean_kmh,
        coalesce(trip.energy_net_kwh, trip.energy_counter_kwh) as net_kwh,
        case when trip.energy_net_kwh is null then trip.regen_counter_kwh else trip.energy_regen_kwh end as regen_kwh,
        extract(month from trip.started_at) as calendar_month,
        {{ band_of('trip.ambient_mean_c', var('temperature_band_c')) }} as ambient_from_c
    from {{ ref('fct_trip') }} as trip
    where {{ devices_in_scope() }}
),

banded as (
    select
        'all' as band_kind,
        'all' as band,
        trips.*
    from trips
    union all
    select
        'ambient' as band_kind,
        {{ band_name('ambient_from_c', 'ambient_from_c + ' ~ var('temperature_band_c')) }} as band,
        trips.*
    from trips
    union all
    select
        'speed' as band_kind,
        case
            {%- for edge in var('speed_bands_kmh') %}
            when speed_mean_kmh < {{ edge }} then '{{ loop.previtem | default(0) }}-{{ edge }}'
            {%- endfor %}
            when speed_mean_kmh >= {{ var('speed_bands_kmh') | last }} then '{{ var('speed_bands_kmh') | last }}-'
            else 'unknown'
        end as band,
        trips.*
    from trips
    union all
    select
        'season' as band_kind,
        case
            when calendar_month in (12, 1, 2) then 'winter'
            when calendar_month in (3, 4, 5) then 'spring'
            when calendar_month in (6, 7, 8) then 'summer'
            else 'autumn'
        end as band,
        trips.*
    from trips
),

summed as (
    select
        band_kind,
        band,
        count(*) as trip_count,
        {{ fixed_sum('distance_km') }} as trip_km,
        count(net_kwh) as n,
        {{ fixed_sum('case when net_kwh is not null then distance_km end') }} as distance_km,
        {{ fixed_sum('net_kwh') }} as energy_net_kwh,
        {{ fixed_sum('distance_km * distance_km * case when net_kwh is not null then 1 end') }} as distance_square,
        {{ fixed_sum('net_kwh * net_kwh') }} as energy_square,
        {{ fixed_sum('net_kwh * distance_km') }} as energy_distance,
        {{ fixed_sum('net_kwh + regen_kwh') }} as out_kwh,
        {{ fixed_sum('case when net_kwh is not null then regen_kwh end') }} as regen_kwh,
        device_no,
        measured_month
    from banded
    group by device_no, measured_month, band_kind, band
),

judged as (
    select
        *,
        case
            when n = 0 then 'no trip whose energy is known'
            when coalesce(distance_km, 0e0) < {{ var('efficiency_min_km') }} then 'too few kilometres'
            when energy_net_kwh < {{ var('efficiency_min_kwh') }} then 'too little energy'
        end as missing_because,
        energy_net_kwh / nullif(distance_km, 0) as kwh_per_km
    from summed
),

-- half a 90 % interval of a ratio of sums (Cochran, Sampling Techniques, 1977, 6.4): residuals of the trips from it
erred as (
    select
        *,
        case
            when n >= {{ var('efficiency_min_n') }}
                then {{ student_t('n - 1e0') }} * sqrt(
                    greatest(
                        energy_square - 2 * kwh_per_km * energy_distance
                        + kwh_per_km * kwh_per_km * distance_square,
                        0e0
                    ) * n / (n - 1e0)
                ) / nullif(distance_km, 0)
        end as half_kwh_per_km
    from judged
)

select
    band_kind,
    band,
    distance_km,
    energy_net_kwh,
    case when missing_because is null then 100 * kwh_per_km end as kwh_per_100km,
    case when missing_because is null then 100 * (kwh_per_km - half_kwh_per_km) end as kwh_per_100km_lo,
    case when missing_because is null then 100 * (kwh_per_km + half_kwh_per_km) end as kwh_per_100km_hi,
    case when out_kwh >= {{ var('efficiency_min_kwh') }} then 100 * regen_kwh / out_kwh end as regen_share_pct,
    n,
    trip_count,
    trip_km,
    missing_because,
    device_no,
    measured_month
from erred
