{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per awake period: a maximal run of messages without a silence longer than a logging gap, with its first and
-- last readings. What lies between two of them is a silence. Local: a period ends at the month's edge, the stitching
-- joins it to the next one where the gap is no silence.
with

fragments as (
    select * from {{ ref('int_fragment') }}
    where {{ partitions_in_scope() }}
),

place_minute as (
    select * from {{ ref('int_place_minute') }}
),

periods as (
    select
        min(source) as source,
        awake_no,
        min(from_at) as from_at,
        max(to_at) as to_at,
        sum(message_count) as message_count,
        -- of its largest fragment
        max_by(interval_median_s, message_count * 1000000 - fragment_no) filter (where interval_median_s is not null)
            as interval_median_s,
        min(state) filter (where is_first_of_period) as state_first,
        min(state) filter (where is_last_of_period) as state_last,
        {{ first_of('soc_first_pct', 'fragment_no') }} as soc_first_pct,
        min(soc_first_at) as soc_first_at,
        {{ last_of('soc_last_pct', 'fragment_no') }} as soc_last_pct,
        {% for name, unit in [
            ('odometer', 'km'), ('charged_total', 'ah'), ('discharged_total', 'ah'), ('charged_total', 'kwh'),
            ('discharged_total', 'kwh'), ('plug_total', 'kwh'), ('quick_total', 'kwh')
        ] %}
        {{ first_of(name ~ '_from_' ~ unit, 'fragment_no') }} as {{ name }}_first_{{ unit }},
        {{ last_of(name ~ '_to_' ~ unit, 'fragment_no') }} as {{ name }}_last_{{ unit }},
        {% endfor %}
        {{ first_of('operating_first_s', 'fragment_no') }} as operating_first_s,
        {{ last_of('operating_last_s', 'fragment_no') }} as operating_last_s,
        max(cell_slot_count) as cell_slot_count,
        {{ fixed_sum('charge_ah') }} as charge_ah,
        {{ fixed_sum('discharge_ah') }} as discharge_ah,
        {{ fixed_sum('integrated_s') }} as integrated_s,
        min(rest_at) as rest_at,
        {{ first_of('rest_pack_voltage_v', 'fragment_no') }} as rest_pack_voltage_v,
        min_by(rest_current_a, fragment_no) filter (where rest_at is not null) as rest_current_a,
        min_by(rest_cell_mean_mv, fragment_no) filter (where rest_at is not null) as rest_cell_mean_mv,
        min_by(rest_soc_pct, fragment_no) filter (where rest_at is not null) as rest_soc_pct,
        min_by(rest_temp_c, fragment_no) filter (where rest_at is not null) as rest_temp_c,
        {{ first_of('current_first_a', 'fragment_no') }} as current_first_a,
        {{ last_of('current_last_a', 'fragment_no') }} as current_last_a,
        {{ last_of('voltage_last_v', 'fragment_no') }} as pack_voltage_last_v,
        {{ first_of('module_temp_first_c', 'fragment_no') }} as module_temp_first_c,
        {{ last_of('module_temp_last_c', 'fragment_no') }} as module_temp_last_c,
        device_no,
        measured_month
    from fragments
    group by device_no, measured_month, awake_no
),

-- nearest standing fix to each edge: from shortly before it on, else before it
placed as (
    select
        periods.awake_no,
        min_by(place_minute.lat, abs({{ seconds_between('place_minute.seen_at', 'periods.from_at') }})) filter (
            where abs({{ seconds_between('place_minute.seen_at', 'periods.from_at') }}) <= {{ var('place_max_s') }}
        ) as lat_first,
        min_by(place_minute.lng, abs({{ seconds_between('place_minute.seen_at', 'periods.from_at') }})) filter (
            where abs({{ seconds_between('place_minute.seen_at', 'periods.from_at') }}) <= {{ var('place_max_s') }}
        ) as lng_first,
        min_by(place_minute.lat, abs({{ seconds_between('place_minute.seen_at', 'periods.to_at') }})) filter (
            where abs({{ seconds_between('place_minute.seen_at', 'periods.to_at') }}) <= {{ var('place_max_s') }}
        ) as lat_last,
        min_by(place_minute.lng, abs({{ seconds_between('place_minute.seen_at', 'periods.to_at') }})) filter (
            where abs({{ seconds_between('place_minute.seen_at', 'periods.to_at') }}) <= {{ var('place_max_s') }}
        ) as lng_last,
        periods.device_no,
        periods.measured_month
    from periods
    inner join place_minute
        on
            periods.device_no = place_minute.device_no
            and periods.measured_month = place_minute.measured_month
            and {{ seconds_between('place_minute.seen_at', 'periods.from_at') }} <= {{ var('place_max_s') }}
            and {{ seconds_between('periods.to_at', 'place_minute.seen_at') }} <= {{ var('place_max_s') }}
    group by periods.device_no, periods.measured_month, periods.awake_no
)

select
    periods.source,
    periods.awake_no,
    periods.from_at,
    periods.to_at,
    cast(periods.message_count as bigint) as message_count,
    periods.interval_median_s,
    periods.state_first,
    periods.state_last,
    periods.soc_first_pct,
    periods.soc_first_at,
    periods.soc_last_pct,
    periods.odometer_first_km,
    periods.odometer_last_km,
    periods.charged_total_first_ah,
    periods.charged_total_last_ah,
    periods.discharged_total_first_ah,
    periods.discharged_total_last_ah,
    periods.charged_total_first_kwh,
    periods.charged_total_last_kwh,
    periods.discharged_total_first_kwh,
    periods.discharged_total_last_kwh,
    periods.plug_total_first_kwh,
    periods.plug_total_last_kwh,
    periods.quick_total_first_kwh,
    periods.quick_total_last_kwh,
    periods.operating_first_s,
    periods.operating_last_s,
    periods.cell_slot_count,
    periods.charge_ah,
    periods.discharge_ah,
    periods.integrated_s,
    periods.rest_at,
    periods.rest_pack_voltage_v,
    periods.rest_current_a,
    periods.rest_cell_mean_mv,
    periods.rest_soc_pct,
    periods.rest_temp_c,
    periods.current_first_a,
    periods.current_last_a,
    periods.pack_voltage_last_v,
    periods.module_temp_first_c,
    periods.module_temp_last_c,
    placed.lat_first,
    placed.lng_first,
    placed.lat_last,
    placed.lng_last,
    periods.device_no,
    periods.measured_month
from periods
left join placed
    on
        periods.device_no = placed.device_no and periods.measured_month = placed.measured_month
        and periods.awake_no = placed.awake_no
