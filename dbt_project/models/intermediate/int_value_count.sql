{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per device, month and rule: how many rows of the partition hold no value (a listed sentinel) or a suspect one
-- (outside what physics or neighbours allow; kept). Rules of DOMAIN 3, kinds 2 and 3. Local.
{%- set bms_rules = [
    ('odometer_zero', 'no_value', 'odometer_km is not null or is_odometer_zero', 'is_odometer_zero', 'odometer_km'),
    ('cell_sentinel', 'no_value', 'cell_slot_count > 0', 'cell_sentinel_n > 0', 'cell_sentinel_n'),
    ('cell_placeholder', 'no_value', 'cell_slot_count > 0', 'cell_placeholder_n > 0', 'cell_placeholder_n'),
    ('temperature_sentinel', 'no_value', 'module_temp_n + module_temp_sentinel_n > 0', 'module_temp_sentinel_n > 0',
     'module_temp_sentinel_n'),
    ('soc_no_value', 'no_value', 'soc_pct is not null or is_soc_no_value', 'is_soc_no_value', 'soc_pct'),
    ('insulation_wake_zero', 'no_value', 'insulation_kohm is not null', 'is_insulation_zero and is_waking',
     'insulation_kohm'),
    ('insulation_zero', 'suspect', 'insulation_kohm is not null', 'is_insulation_zero and not is_waking',
     'insulation_kohm'),
    ('cell_out_of_range', 'suspect', 'cell_slot_count > 0', 'is_cell_suspect', 'cell_min_mv'),
    ('cell_unfit', 'suspect', 'cell_slot_count > 0', 'cell_unfit_n > 0', 'cell_unfit_n'),
    ('pack_voltage_mismatch', 'suspect', 'cell_sum_mv is not null and pack_voltage_v is not null',
     'is_pack_voltage_suspect', 'pack_voltage_v'),
    ('temperature_out_of_range', 'suspect', 'module_temp_n > 0', 'is_temperature_suspect', 'module_max_c'),
    ('current_out_of_range', 'suspect', 'pack_current_a is not null', 'is_current_suspect', 'pack_current_a'),
    ('speed_out_of_range', 'suspect', 'speed_kmh is not null', 'is_speed_suspect', 'speed_kmh'),
    ('soc_jump', 'suspect', 'soc_pct is not null', 'is_soc_jump', 'soc_pct'),
] %}
{%- set gps_rules = [
    ('gps_position_zero', 'no_value', 'true', 'is_position_zero', 'lat'),
    ('gps_position_out_of_range', 'suspect', 'true', 'is_position_out_of_range', 'lat'),
    ('gps_hdop', 'suspect', 'hdop is not null', 'is_hdop_suspect', 'hdop'),
    ('gps_speed_out_of_range', 'suspect', 'speed_kmh is not null', 'is_speed_suspect', 'speed_kmh'),
] %}
with

messages as (
    select
        recorded_at,
        odometer_km,
        speed_kmh,
        soc_pct,
        insulation_kohm,
        pack_voltage_v,
        pack_current_a,
        charged_total_ah + discharged_total_ah as moved_total_ah,
        module_max_c,
        module_temp_n,
        module_temp_sentinel_n,
        cell_n + cell_sentinel_n + cell_placeholder_n + cell_unfit_n as cell_slot_count,
        cell_sentinel_n,
        cell_placeholder_n,
        cell_unfit_n,
        cell_min_mv,
        cell_sum_mv,
        unsupported_channels,
        is_odometer_zero,
        is_soc_no_value,
        is_insulation_zero,
        is_cell_suspect,
        is_pack_voltage_suspect,
        is_temperature_suspect,
        is_current_suspect,
        is_speed_suspect,
        device_no,
        measured_month
    from {{ ref('stg_bms') }}
),

-- neighbours are looked at on as few columns as the rules need
neighbours as (
    select
        recorded_at,
        soc_pct,
        moved_total_ah,
        is_insulation_zero,
        {{ seconds_between('lag(recorded_at) over w', 'recorded_at') }} as interval_s,
        {{ lag_known('soc_pct') }} over w as soc_before_pct,
        {{ lag_known('case when soc_pct is not null then recorded_at end') }} over w as soc_before_at,
        {{ lag_known('case when soc_pct is not null then moved_total_ah end') }} over w as moved_total_before_ah,
        device_no,
        measured_month
    from messages
    window w as ({{ in_time_order() }})
),

soc_jumps as (
    select
        recorded_at,
        device_no,
        measured_month
    from neighbours
    where
        abs(soc_pct - soc_before_pct) > {{ var('soc_jump_pct') }}
        and {{ seconds_between('soc_before_at', 'recorded_at') }} < {{ var('soc_jump_s') }}
        and coalesce(moved_total_ah - moved_total_before_ah, 0) < {{ var('soc_jump_confirm_ah') }}
),

woken as (
    select
        recorded_at,
        is_insulation_zero,
        max(
            case when interval_s is null or interval_s > {{ var('logging_gap_s') }} then recorded_at end
        ) over ({{ in_time_order() }} rows between unbounded preceding and current row) as woken_at,
        device_no,
        measured_month
    from neighbours
    where is_insulation_zero or interval_s is null or interval_s > {{ var('logging_gap_s') }}
),

waking_zeros as (
    select
        recorded_at,
        device_no,
        measured_month
    from woken
    where
        is_insulation_zero
        and {{ seconds_between('woken_at', 'recorded_at') }} <= {{ var('insulation_wake_s') }}
),

-- voltage and current that do not move while the car does
moving as (
    select
        recorded_at,
        speed_kmh,
        pack_voltage_v,
        pack_current_a,
        device_no,
        measured_month
    from messages
    where speed_kmh > {{ var('frozen_signal_kmh') }} and pack_voltage_v is not null and pack_current_a is not null
),

compared as (
    select
        *,
        coalesce(
            pack_voltage_v = lag(pack_voltage_v) over w and pack_current_a = lag(pack_current_a) over w
            and {{ seconds_between('lag(recorded_at) over w', 'recorded_at') }} <= {{ var('logging_gap_s') }},
            false
        ) as is_same
    from moving
    window w as ({{ in_time_order() }})
),

numbered as (
    select
        *,
        sum(case when is_same then 0 else 1 end) over ({{ in_time_order() }}) as island_no
    from compared
),

frozen as (
    select
        count(*) as row_count,
        min(recorded_at) as first_at,
        max(recorded_at) as last_at,
        min_by(pack_voltage_v, recorded_at) as example,
        device_no,
        measured_month
    from numbered
    group by device_no, measured_month, island_no
    having
        {{ seconds_between('min(recorded_at)', 'max(recorded_at)') }} >= {{ var('frozen_signal_s') }}
        and max(speed_kmh) > min(speed_kmh)
),

flagged as (
    select
        messages.*,
        soc_jumps.recorded_at is not null as is_soc_jump,
        waking_zeros.recorded_at is not null as is_waking
    from messages
    left join soc_jumps
        on
            messages.device_no = soc_jumps.device_no and messages.measured_month = soc_jumps.measured_month
            and messages.recorded_at = soc_jumps.recorded_at
    left join waking_zeros
        on
            messages.device_no = waking_zeros.device_no and messages.measured_month = waking_zeros.measured_month
            and messages.recorded_at = waking_zeros.recorded_at
),

bms_checked as (
    select
        {%- for rule, kind, checked, hit, example in bms_rules %}
        count(*) filter (where {{ checked }}) as {{ rule }},
        {%- endfor %}
        count(*) filter (where pack_voltage_v is not null and pack_current_a is not null) as frozen_signal,
        count(*) as unsupported_channel,
        device_no,
        measured_month
    from messages
    group by device_no, measured_month
),

-- most rows are sound: only the others are looked at rule by rule
bms_hit as (
    select * from flagged
    where
        false
        {%- for rule, kind, checked, hit, example in bms_rules %}
        or ({{ hit }})
        {%- endfor %}
),

gps_checked as (
    select
        {%- for rule, kind, checked, hit, example in gps_rules %}
        count(*) filter (where {{ checked }}) as {{ rule }},
        {%- endfor %}
        count(lat) as gps_jump,
        device_no,
        measured_month
    from {{ ref('stg_gps') }}
    group by device_no, measured_month
),

gps_hit as (
    select * from {{ ref('stg_gps') }}
    where
        false
        {%- for rule, kind, checked, hit, example in gps_rules %}
        or ({{ hit }})
        {%- endfor %}
),

hits as (
    {%- for rules, source_kind in [(bms_rules, 'bms'), (gps_rules, 'gps')] %}
    {%- for rule, kind, checked, hit, example in rules %}
    select
        '{{ rule }}' as rule,
        count(*) as rows_hit,
        min(recorded_at) as first_at,
        max(recorded_at) as last_at,
        cast(min_by({{ example }}, recorded_at) as string) as example,
        device_no,
        measured_month
    from {{ source_kind }}_hit
    where {{ hit }}
    group by device_no, measured_month
    union all
    {%- endfor %}
    {%- endfor %}
    select
        'gps_jump' as rule,
        count(*) as rows_hit,
        min(from_at) as first_at,
        max(from_at) as last_at,
        cast(min_by(round(jump_km, 3), from_at) as string) as example,
        device_no,
        measured_month
    from {{ ref('int_gps_run') }}
    where is_after_jump and {{ partitions_in_scope() }}
    group by device_no, measured_month
    union all
    select
        'frozen_signal' as rule,
        sum(row_count) as rows_hit,
        min(first_at) as first_at,
        max(last_at) as last_at,
        cast(min_by(example, first_at) as string) as example,
        device_no,
        measured_month
    from frozen
    group by device_no, measured_month
    union all
    -- not a rule of the list: on such a car every row is hit
    select
        'unsupported_channel' as rule,
        count(*) as rows_hit,
        min(recorded_at) as first_at,
        max(recorded_at) as last_at,
        min(unsupported_channels) as example,
        device_no,
        measured_month
    from messages
    where unsupported_channels is not null
    group by device_no, measured_month
),

checked as (
    {%- for rules, source_kind in [
        (bms_rules + [('frozen_signal', 'suspect'), ('unsupported_channel', 'no_value')], 'bms'),
        (gps_rules + [('gps_jump', 'suspect')], 'gps'),
    ] %}
    {%- set outer_last = loop.last %}
    {%- for rule in rules %}
    select
        '{{ rule[0] }}' as rule,
        '{{ rule[1] }}' as kind,
        '{{ source_kind }}' as source_kind,
        {{ rule[0] }} as rows_checked,
        device_no,
        measured_month
    from {{ source_kind }}_checked
    {{ 'union all' if not (outer_last and loop.last) }}
    {%- endfor %}
    {%- endfor %}
)

select
    checked.rule,
    checked.kind,
    checked.source_kind,
    cast(checked.rows_checked as bigint) as rows_checked,
    cast(coalesce(hits.rows_hit, 0) as bigint) as rows_hit,
    hits.first_at,
    hits.last_at,
    hits.example,
    checked.device_no,
    checked.measured_month
from checked
left join hits
    on
        checked.rule = hits.rule
        and checked.device_no = hits.device_no and checked.measured_month = hits.measured_month
where checked.rows_checked > 0
