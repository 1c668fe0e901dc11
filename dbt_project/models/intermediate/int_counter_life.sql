{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per awake period: its counters, and the life of pack and counters it belongs to. The only place that says
-- where another pack begins, or a counter anew: a counter that falls or rises by more than a car can charge or take,
-- net charge beyond what the pack holds, another number of cells that lasts. What moved over the silence before a
-- period counts with the period. Stitched, gated months left out.
{%- set counters = [('charged', 'ah'), ('discharged', 'ah'), ('charged', 'kwh'), ('discharged', 'kwh')] %}
{%- set per_ah = {'ah': '1', 'kwh': 'volts / 1000'} %}
{%- set cell_reach = var('cells_window_periods') - 1 %}
with

periods as (
    select * from {{ ref('int_awake_period') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

-- the highest voltage that the pack showed: energy of a charge at most
voltage as (
    select
        max(pack_voltage_last_v) as volts,
        device_no
    from periods
    group by device_no
),

-- how often the same number of cells stands around a period, and whether a longer list does: a list that lacks a block
-- is shorter, so where some are short the longest is the pack's
cell_counts as (
    select
        cell_slot_count,
        max(cell_slot_count) over (w rows between current row and {{ cell_reach }} following) as most_after,
        max(cell_slot_count) over (w rows between {{ cell_reach }} preceding and current row) as most_before,
        {%- for side, step in [('after', 'lead'), ('before', 'lag')] %}
        1
        {%- for k in range(1, cell_reach + 1) %}
        + case when {{ step }}(cell_slot_count, {{ k }}) over w = cell_slot_count then 1 else 0 end
        {%- endfor %} as same_{{ side }},
        {%- endfor %}
        awake_no,
        device_no,
        measured_month
    from periods
    where cell_slot_count > 0
    window w as (partition by device_no order by from_at, measured_month, awake_no)
),

lasting as (
    select
        case
            when cell_slot_count = most_after and same_after >= {{ var('cells_last_periods') }} then cell_slot_count
            when cell_slot_count = most_before and same_before >= {{ var('cells_last_periods') }} then cell_slot_count
        end as pack_cells,
        awake_no,
        device_no,
        measured_month
    from cell_counts
),

read as (
    select
        periods.awake_no,
        periods.from_at,
        periods.to_at,
        {{ seconds_between('periods.from_at', 'periods.to_at') }} / 3600 as awake_h,
        case
            when {{ seconds_between('periods.from_at', 'periods.soc_first_at') }} <= {{ var('rest_fresh_s') }}
                then periods.soc_first_pct
        end as soc_pct,
        {%- for name, unit in counters %}
        periods.{{ name }}_total_first_{{ unit }} as {{ name }}_first_{{ unit }},
        periods.{{ name }}_total_last_{{ unit }} as {{ name }}_last_{{ unit }},
        {%- endfor %}
        periods.odometer_first_km,
        periods.odometer_last_km,
        periods.operating_last_s - periods.operating_first_s as operating_s,
        periods.pack_voltage_last_v,
        lasting.pack_cells,
        coalesce(device_setting.capacity_nominal_ah, {{ var('pack_capacity_max_ah') }}e0) as capacity_ah,
        coalesce(voltage.volts, {{ var('pack_voltage_max_v') }}e0) as volts,
        periods.device_no,
        periods.measured_month
    from periods
    inner join voltage on periods.device_no = voltage.device_no
    left join device_setting on periods.device_no = device_setting.device_no
    left join lasting
        on
            periods.device_no = lasting.device_no and periods.measured_month = lasting.measured_month
            and periods.awake_no = lasting.awake_no
),

-- each counter is compared with its last reading, however long ago
followed as (
    select
        *,
        {{ seconds_between('lag(to_at) over w', 'from_at') }} / 3600 as silent_h,
        odometer_first_km - lag(odometer_last_km) over w as silent_km,
        {{ lag_known('pack_cells') }} over w as cells_before,
        {%- for name, unit in counters %}
        {{ lag_known(name ~ '_last_' ~ unit) }} over w as {{ name }}_before_{{ unit }},
        {{ seconds_between(
            lag_known('case when ' ~ name ~ '_last_' ~ unit ~ ' is not null then to_at end') ~ ' over w', 'from_at'
        ) }} / 3600 as {{ name }}_{{ unit }}_since_h,
        {%- endfor %}
        {{ counter_rise_max_ah('awake_h') }} as awake_max_ah
    from read
    window w as (partition by device_no order by from_at, measured_month, awake_no)
),

stepped as (
    select
        *,
        {{ counter_rise_max_ah('silent_h', 'silent_km') }} as silence_max_ah,
        {%- for name, unit in counters %}
        {%- set since_h = name ~ '_' ~ unit ~ '_since_h' %}
        {{ name }}_first_{{ unit }} - {{ name }}_before_{{ unit }} as {{ name }}_step_{{ unit }},
        {{ counter_rise_max_ah(since_h, 'case when ' ~ since_h ~ ' <= silent_h then silent_km end') }}
        * {{ per_ah[unit] }} as {{ name }}_max_{{ unit }},
        {%- endfor %}
        abs((charged_first_ah - charged_before_ah) - (discharged_first_ah - discharged_before_ah)) as net_step_ah
    from followed
),

judged as (
    select
        *,
        coalesce(pack_cells <> cells_before, false) as is_other_cells,
        coalesce(
            {%- for name, unit in counters %}
            {{ 'or ' if not loop.first }}{{ name }}_step_{{ unit }} < -{{ var('counter_reset_' ~ unit) }}
            {%- endfor %},
            false
        ) as is_fallen,
        coalesce(
            net_step_ah > {{ var('counter_jump_share') }} * capacity_ah
            {%- for name, unit in counters %}
            or {{ name }}_step_{{ unit }} > {{ name }}_max_{{ unit }}
            {%- endfor %},
            false
        ) as is_risen,
        coalesce(
            {%- for name, unit in counters %}
            {{ 'or ' if not loop.first }}{{ name }}_last_{{ unit }} - {{ name }}_first_{{ unit }}
            not between -{{ var('counter_reset_' ~ unit) }} and awake_max_ah * {{ per_ah[unit] }}
            {%- endfor %},
            false
        ) as is_reset_inside
    from stepped
),

reasoned as (
    select
        *,
        case
            when is_other_cells then 'another number of cells: another pack'
            when is_fallen then 'a counter began anew'
            when is_risen then 'counters rose by more than the car can have charged or taken: another pack'
        end as begun_because
    from judged
),

begun as (
    select
        *,
        begun_because is not null as is_reset_before,
        begun_because is not null
        or coalesce(
            lag(is_reset_inside) over (partition by device_no order by from_at, measured_month, awake_no), false
        ) as is_new_life
    from reasoned
),

lives as (
    select
        *,
        cast(sum(case when is_new_life then 1 else 0 end) over (
            partition by device_no order by from_at, measured_month, awake_no
            rows between unbounded preceding and current row
        ) as bigint) as life_no
    from begun
),

placed as (
    select
        *,
        row_number() over w = 1 as is_first,
        {{ lag_known('charged_last_ah') }} over w as charged_known_ah,
        {{ lag_known('discharged_last_ah') }} over w as discharged_known_ah,
        {{ lag_known('charged_last_kwh') }} over w as charged_known_kwh
    from lives
    window w as (partition by device_no, life_no order by from_at, measured_month, awake_no)
)

select
    awake_no,
    from_at,
    to_at,
    awake_h,
    silent_h,
    soc_pct,
    charged_first_ah,
    charged_last_ah,
    discharged_first_ah,
    discharged_last_ah,
    case when not is_reset_inside then charged_last_ah - coalesce(charged_known_ah, charged_first_ah) end
        as charged_ah,
    case when not is_reset_inside then discharged_last_ah - coalesce(discharged_known_ah, discharged_first_ah) end
        as discharged_ah,
    case when not is_reset_inside then charged_last_kwh - coalesce(charged_known_kwh, charged_first_kwh) end
        as charged_kwh,
    operating_s,
    pack_voltage_last_v,
    awake_max_ah,
    awake_max_ah * volts / 1000 as awake_max_kwh,
    silence_max_ah,
    silence_max_ah * volts / 1000 as silence_max_kwh,
    is_reset_before,
    is_reset_inside,
    case when is_reset_inside then coalesce(begun_because, 'a counter began anew') else begun_because end
        as reset_because,
    life_no,
    is_first,
    coalesce(
        sum(awake_h) over (
            partition by device_no, life_no order by from_at rows between unbounded preceding and 1 preceding
        ),
        0e0
    ) as awake_before_h,
    -- the silence before a life's first waking belongs to none
    sum(case when is_first then 0e0 else silent_h end) over (
        partition by device_no, life_no order by from_at rows between unbounded preceding and current row
    ) as silent_before_h,
    device_no,
    measured_month
from placed
