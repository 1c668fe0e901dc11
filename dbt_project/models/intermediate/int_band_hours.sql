{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per device, KST day, kind (temperature, soc, charge_rate, discharge_rate) and band: logged time, cut at
-- midnight. Time is logged between two messages at most {{ var('logging_gap_s') }} s apart and has the values of the
-- second; what lies between awake periods is a silence and is added by the stitching. Band NULL is unknown: no reading,
-- a suspect one, or a rate of a pack whose capacity is not known. Local.
with

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
),

bms as (
    select
        recorded_at,
        soc_pct,
        case when not is_temperature_suspect then pack_temp_c end as temp_c,
        case when not is_current_suspect then pack_current_a end as current_a,
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

-- a month without any BMS message: what the telematics unit sees of the SoC
gps as (
    select
        fixes.recorded_at,
        fixes.fuel_pct as soc_pct,
        cast(null as double) as temp_c,
        cast(null as double) as current_a,
        fixes.device_no,
        fixes.measured_month
    from {{ ref('stg_gps') }} as fixes
    left join bms_partition
        on fixes.device_no = bms_partition.device_no and fixes.measured_month = bms_partition.measured_month
    where bms_partition.device_no is null
),

messages as (
    select * from bms
    union all
    select * from gps
),

paired as (
    select
        recorded_at,
        lag(recorded_at) over w as before_at,
        soc_pct,
        temp_c,
        (current_a + lag(current_a) over w) / 2 as current_a,
        device_no,
        measured_month
    from messages
    window w as ({{ in_time_order() }})
),

timed as (
    select
        *,
        {{ seconds_between('before_at', 'recorded_at') }} as interval_s,
        {{ kst_day('recorded_at') }} as service_date,
        {{ kst_day('before_at') }} as date_before
    from paired
),

logged as (
    select * from timed
    where interval_s <= {{ var('logging_gap_s') }}
),

-- the pair over midnight is two parts
parts as (
    select
        service_date,
        case
            when service_date = date_before then interval_s
            else {{ seconds_between('cast(service_date as timestamp)', 'recorded_at') }}
        end as part_s,
        recorded_at as part_at,
        soc_pct,
        temp_c,
        current_a,
        device_no,
        measured_month
    from logged
    union all
    select
        date_before as service_date,
        {{ seconds_between('before_at', 'cast(service_date as timestamp)') }} as part_s,
        cast(service_date as timestamp) as part_at,
        soc_pct,
        temp_c,
        current_a,
        device_no,
        measured_month
    from logged
    where service_date <> date_before
),

banded as (
    select
        parts.service_date,
        {{ band_of('parts.temp_c', var('temperature_band_c')) }} as temp_band,
        {{ soc_band_of('parts.soc_pct', var('soc_band_pct')) }} as soc_band,
        {{ rate_band_of('greatest(parts.current_a, 0e0) / nullif(device_setting.capacity_nominal_ah, 0)') }}
            as charge_band,
        {{ rate_band_of('greatest(-parts.current_a, 0e0) / nullif(device_setting.capacity_nominal_ah, 0)') }}
            as discharge_band,
        sum({{ fixed('parts.part_s') }}) as band_s,
        sum({{ fixed('parts.part_s * parts.soc_pct') }}) as soc_s_pct,
        min(parts.soc_pct) as soc_min_pct,
        max(parts.soc_pct) as soc_max_pct,
        max(parts.part_at) filter (where parts.soc_pct is not null) as soc_last_at,
        max_by(parts.soc_pct, parts.part_at) filter (where parts.soc_pct is not null) as soc_last_pct,
        parts.device_no,
        parts.measured_month
    from parts
    left join device_setting on parts.device_no = device_setting.device_no
    group by all
),

by_kind as (
    {%- for kind, band in [
        ('temperature', 'temp_band'), ('soc', 'soc_band'), ('charge_rate', 'charge_band'),
        ('discharge_rate', 'discharge_band'),
    ] %}
    select
        service_date,
        '{{ kind }}' as kind,
        {{ band }} as band_from,
        cast(sum(band_s) / 3600 as double) as hours,
        {% if kind == 'soc' -%}
        cast(sum(soc_s_pct) / 3600 as double) as soc_h_pct,
        min(soc_min_pct) as soc_min_pct,
        max(soc_max_pct) as soc_max_pct,
        max(soc_last_at) as soc_last_at,
        max_by(soc_last_pct, soc_last_at) filter (where soc_last_at is not null) as soc_last_pct,
        {%- else -%}
        cast(null as double) as soc_h_pct,
        cast(null as double) as soc_min_pct,
        cast(null as double) as soc_max_pct,
        cast(null as timestamp) as soc_last_at,
        cast(null as double) as soc_last_pct,
        {%- endif %}
        device_no,
        measured_month
    from banded
    group by device_no, measured_month, service_date, {{ band }}
    {% if not loop.last %}union all{% endif %}
    {%- endfor %}
)

select * from by_kind
