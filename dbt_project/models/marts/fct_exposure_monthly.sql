{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device, month, kind (temperature, soc, charge_rate, discharge_rate) and band: hours the pack spent there,
-- silences included. The hours of every kind add up to the hours of the device's span in the month. Stitched.
{%- set width = var('soc_band_pct') %}
{%- set reasons = [
    'no reading', 'nominal capacity unknown', 'silence', 'silence over 14 days', 'driven in a silence',
    'charged in a silence',
] %}
with

band_hours as (
    select * from {{ ref('int_band_hours') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

silence_day as (
    select * from {{ ref('int_silence_day') }}
),

soc_bands as (
    {%- for band in range(0, 100, width) %}
    select {{ band }}e0 as band_from{{ " union all" if not loop.last }}
    {%- endfor %}
),

logged as (
    select
        band_hours.kind,
        band_hours.band_from,
        case
            when band_hours.band_from is not null then null
            when band_hours.kind in ('charge_rate', 'discharge_rate') and device_setting.capacity_nominal_ah is null
                then 'nominal capacity unknown'
            else 'no reading'
        end as because,
        band_hours.hours,
        0e0 as silent_h,
        band_hours.device_no,
        band_hours.measured_month
    from band_hours
    left join device_setting on band_hours.device_no = device_setting.device_no
),

-- a straight line spends in each band what it crosses of it
silent_soc as (
    select
        'soc' as kind,
        soc_bands.band_from,
        silence_day.part_h * case
            when silence_day.soc_from_pct = silence_day.soc_to_pct then 1e0
            else (
                least(greatest(silence_day.soc_from_pct, silence_day.soc_to_pct), soc_bands.band_from + {{ width }})
                - greatest(least(silence_day.soc_from_pct, silence_day.soc_to_pct), soc_bands.band_from)
            ) / nullif(abs(silence_day.soc_to_pct - silence_day.soc_from_pct), 0)
        end as hours,
        silence_day.device_no,
        silence_day.measured_month
    from silence_day
    inner join soc_bands
        on
            {{ soc_band_of('least(silence_day.soc_from_pct, silence_day.soc_to_pct)', width) }} <= soc_bands.band_from
            and {{ soc_band_of('greatest(silence_day.soc_from_pct, silence_day.soc_to_pct)', width) }}
            >= soc_bands.band_from
),

silent as (
    select
        'temperature' as kind,
        cast(null as double) as band_from,
        'silence' as because,
        part_h as hours,
        device_no,
        measured_month
    from silence_day
    union all
    select
        kind,
        band_from,
        null as because,
        hours,
        device_no,
        measured_month
    from silent_soc
    union all
    select
        'soc' as kind,
        null as band_from,
        case when is_long then 'silence over 14 days' else 'no reading' end as because,
        part_h as hours,
        device_no,
        measured_month
    from silence_day
    where soc_from_pct is null
    {%- for kind in ['charge_rate', 'discharge_rate'] %}
    union all
    select
        '{{ kind }}' as kind,
        case when not is_long and not is_charged and not is_driven then 0e0 end as band_from,
        case
            when is_charged then 'charged in a silence'
            when is_driven then 'driven in a silence'
            when is_long then 'silence over 14 days'
        end as because,
        part_h as hours,
        device_no,
        measured_month
    from silence_day
    {%- endfor %}
),

parts as (
    select * from logged
    union all
    select
        kind,
        band_from,
        because,
        hours,
        hours as silent_h,
        device_no,
        measured_month
    from silent
),

bands as (
    select
        kind,
        band_from,
        {{ fixed_sum('hours') }} as hours,
        {{ fixed_sum('silent_h') }} as silent_h,
        {%- for reason in reasons %}
        bool_or(because = '{{ reason }}') as is_reason_{{ loop.index }},
        {%- endfor %}
        device_no,
        measured_month
    from parts
    group by device_no, measured_month, kind, band_from
),

named as (
    select
        *,
        case
            when band_from is null then null
            when kind = 'temperature' then band_from + {{ var('temperature_band_c') }}
            when kind = 'soc' then band_from + {{ width }}
            else {{ rate_band_end('band_from') }}
        end as band_to
    from bands
    where hours > 0
)

select
    kind,
    {{ band_name('band_from', 'band_to') }} as band,
    band_from,
    band_to,
    hours,
    100 * hours
    / nullif(cast(sum({{ fixed('hours') }}) over (partition by device_no, measured_month, kind) as double), 0)
        as share_pct,
    silent_h,
    case
        when band_from is null
            then concat_ws(
                '; ',
                {%- for reason in reasons %}
                case when is_reason_{{ loop.index }} then '{{ reason }}' end{{ "," if not loop.last }}
                {%- endfor %}
            )
    end as unknown_because,
    device_no,
    measured_month
from named
