{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per device and month with rows: whether its lifetime counters can be believed. At the wakings after a rest,
-- counted charge less counted discharge is fitted as capacity x SoC + rate x awake hours: the capacity is the data's
-- own, and the rate is what the counters gain or lose, the imbalance. An offset of the current sensor and an asymmetry
-- of its two directions show as the same imbalance; a gain error common to both shows in neither (DOMAIN 6). The rate
-- is judged against what a healthy sensor may have, and against the first months of the same counter. Stitched.
{%- set sums = ['t', 's', 'y', 'tt', 'ts', 'ty', 'ss', 'sy', 'yy'] %}
{%- set summed = ['n'] + sums + ['awake_h', 'silent_h'] %}
{%- set windows = var('audit_windows') %}
with

moved as (
    select * from {{ ref('int_counter_life') }}
    where {{ devices_in_scope() }}
),

gated_month as (
    select * from {{ ref('int_gated_month') }}
),

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

voltage as (
    select
        median(pack_voltage_last_v) as pack_voltage_v,
        device_no
    from moved
    group by device_no
),

-- what a parked car takes is no imbalance of the counters
wakings as (
    select
        moved.life_no,
        moved.awake_before_h as t,
        moved.soc_pct / 100e0 as s,
        (moved.charged_first_ah - moved.discharged_first_ah)
        - min(moved.charged_first_ah - moved.discharged_first_ah) over (partition by moved.device_no, moved.life_no)
        - coalesce({{ var('parked_load_w') }} / nullif(voltage.pack_voltage_v, 0), 0e0) * moved.silent_before_h as y,
        moved.device_no,
        moved.measured_month
    from moved
    inner join voltage on moved.device_no = voltage.device_no
    where
        moved.silent_h >= {{ var('audit_rest_h') }}
        and not moved.is_reset_inside
        and moved.soc_pct is not null
        and moved.charged_first_ah is not null and moved.discharged_first_ah is not null
),

waking_month as (
    select
        life_no,
        count(*) as n,
        {{ fixed_sum('t') }} as t,
        {{ fixed_sum('s') }} as s,
        {{ fixed_sum('y') }} as y,
        {{ fixed_sum('t * t') }} as tt,
        {{ fixed_sum('t * s') }} as ts,
        {{ fixed_sum('t * y') }} as ty,
        {{ fixed_sum('s * s') }} as ss,
        {{ fixed_sum('s * y') }} as sy,
        {{ fixed_sum('y * y') }} as yy,
        device_no,
        measured_month
    from wakings
    group by device_no, measured_month, life_no
),

month_life as (
    select
        life_no,
        min(case when is_reset_before then from_at when is_reset_inside then to_at end) as reset_at,
        min_by(reset_because, from_at) filter (where reset_because is not null) as reset_because,
        {{ fixed_sum('awake_h') }} as awake_h,
        {{ fixed_sum('case when is_first then 0e0 else silent_h end') }} as silent_h,
        {{ fixed_sum('charged_ah') }} as charged_ah,
        {{ fixed_sum('discharged_ah') }} as discharged_ah,
        {{ fixed_sum('charged_kwh') }} as charged_kwh,
        {{ fixed_sum('operating_s') }} as operating_s,
        {{ fixed_sum('case when operating_s is not null then awake_h end') }} as operating_awake_h,
        count(charged_last_ah) as charged_count,
        count(discharged_last_ah) as discharged_count,
        device_no,
        measured_month
    from moved
    group by device_no, measured_month, life_no
),

numbered as (
    select
        month_life.*,
        coalesce(waking_month.n, 0) as n,
        {%- for name in sums %}
        coalesce(waking_month.{{ name }}, 0e0) as {{ name }},
        {%- endfor %}
        row_number() over (
            partition by month_life.device_no, month_life.life_no order by month_life.measured_month
        ) as month_no
    from month_life
    left join waking_month
        on
            month_life.device_no = waking_month.device_no and month_life.measured_month = waking_month.measured_month
            and month_life.life_no = waking_month.life_no
),

-- sums of all months so far: those of a window are the difference of two of them
cumulated as (
    select
        {%- for name in summed %}
        sum({{ name }}) over so_far as {{ name }},
        {%- endfor %}
        month_no,
        life_no,
        device_no,
        measured_month
    from numbered
    window so_far as (
        partition by device_no, life_no order by month_no rows between unbounded preceding and current row
    )
),

windows as (
    {%- for months in windows %}
    select {{ months }} as window_months
    {{- " union all" if not loop.last }}
    {%- endfor %}
),

spans as (
    select
        windows.window_months,
        least(cumulated.month_no, windows.window_months) as recent_months,
        cumulated.month_no - windows.window_months as before_no,
        least(cumulated.month_no - windows.window_months, {{ var('audit_reference_months') }}) as reference_no,
        cumulated.*
    from cumulated
    cross join windows
),

-- each window of months, and the first months of the same life before it
pooled as (
    select
        spans.window_months,
        spans.recent_months,
        {%- for name in summed %}
        spans.{{ name }} - coalesce(earlier.{{ name }}, 0) as recent_{{ name }},
        reference.{{ name }} as before_{{ name }},
        {%- endfor %}
        spans.life_no,
        spans.device_no,
        spans.measured_month
    from spans
    left join cumulated as earlier
        on
            spans.device_no = earlier.device_no and spans.life_no = earlier.life_no
            and spans.before_no = earlier.month_no
    left join cumulated as reference
        on
            spans.device_no = reference.device_no and spans.life_no = reference.life_no
            and spans.reference_no = reference.month_no
),

centred as (
    select
        pooled.*,
        {%- for prefix in ['recent', 'before'] %}
        {%- for pair in ['tt', 'ts', 'ty', 'ss', 'sy', 'yy'] %}
        {{ centred_sum(prefix, pair[0], pair[1]) }} as {{ prefix }}_c{{ pair }},
        {%- endfor %}
        {%- endfor %}
        {{ var('parked_load_sd_w') }} / nullif(voltage.pack_voltage_v, 0) as parked_sd_a
    from pooled
    inner join voltage on pooled.device_no = voltage.device_no
),

solved as (
    select
        {%- for prefix in ['recent', 'before'] %}
        case
            when
                {{ prefix }}_n >= {{ var('audit_min_n') }}
                and {{ prefix }}_css >= {{ prefix }}_n * power({{ var('audit_min_soc_sd_pct') }} / 100e0, 2)
                then nullif({{ prefix }}_ctt * {{ prefix }}_css - {{ prefix }}_cts * {{ prefix }}_cts, 0)
        end as {{ prefix }}_det,
        {%- endfor %}
        *
    from centred
),

fitted as (
    select
        {%- for prefix in ['recent', 'before'] %}
        ({{ prefix }}_cty * {{ prefix }}_css - {{ prefix }}_csy * {{ prefix }}_cts) / {{ prefix }}_det
            as {{ prefix }}_rate_a,
        ({{ prefix }}_csy * {{ prefix }}_ctt - {{ prefix }}_cty * {{ prefix }}_cts) / {{ prefix }}_det
            as {{ prefix }}_capacity_ah,
        {%- endfor %}
        *
    from solved
),

erred as (
    select
        {%- for prefix in ['recent', 'before'] %}
        {{ var('audit_se_gain') }} * sqrt(
            greatest(
                {{ prefix }}_cyy - {{ prefix }}_rate_a * {{ prefix }}_cty
                - {{ prefix }}_capacity_ah * {{ prefix }}_csy,
                0e0
            ) / nullif({{ prefix }}_n - 3, 0) * {{ prefix }}_css / {{ prefix }}_det
        ) as {{ prefix }}_se_a,
        parked_sd_a * {{ prefix }}_silent_h / nullif({{ prefix }}_awake_h, 0) as {{ prefix }}_parked_sd_a,
        {%- endfor %}
        *
    from fitted
),

compared as (
    select
        *,
        power(recent_parked_sd_a, 2) + power(recent_se_a, 2) as balance_var,
        sqrt(power({{ var('current_offset_sd_a') }}, 2) + power(recent_parked_sd_a, 2) + power(recent_se_a, 2))
            as healthy_sd_a,
        recent_rate_a - before_rate_a as change_a,
        sqrt(
            power(recent_se_a, 2) + power(before_se_a, 2) + power(recent_parked_sd_a - before_parked_sd_a, 2)
            + power({{ var('audit_change_sd_a') }}, 2)
        ) as change_sd_a
    from erred
),

-- the strongest evidence of the windows
tested as (
    select
        device_no,
        measured_month,
        life_no,
        max(recent_rate_a) filter (where window_months = 1) as rate_a,
        max(recent_se_a) filter (where window_months = 1) as rate_se_a,
        max(recent_n) filter (where window_months = 1) as n,
        min(balance_var) as balance_var,
        min_by(recent_rate_a, balance_var) as balance_rate_a,
        max(abs(recent_rate_a) / nullif(healthy_sd_a, 0)) as healthy_z,
        max_by(recent_rate_a, abs(recent_rate_a) / nullif(healthy_sd_a, 0)) as healthy_rate_a,
        max(abs(change_a) / nullif(change_sd_a, 0)) as change_z,
        max_by(change_a, abs(change_a) / nullif(change_sd_a, 0)) as change_a,
        max_by(recent_months, abs(change_a) / nullif(change_sd_a, 0)) as change_months
    from compared
    group by device_no, measured_month, life_no
),

-- a month in which the counters began anew is judged as a whole, by the life that it ends with
months as (
    select
        numbered.device_no,
        numbered.measured_month,
        min(numbered.reset_at) as reset_at,
        min_by(numbered.reset_because, numbered.reset_at) filter (where numbered.reset_at is not null)
            as reset_because,
        max(numbered.life_no) as life_no,
        {{ fixed_sum('numbered.awake_h') }} as awake_h,
        {{ fixed_sum('numbered.charged_ah') }} as charged_ah,
        {{ fixed_sum('numbered.discharged_ah') }} as discharged_ah,
        {{ fixed_sum('numbered.charged_kwh') }} as charged_kwh,
        {{ fixed_sum('numbered.operating_s') }} as operating_s,
        {{ fixed_sum('numbered.operating_awake_h') }} as operating_awake_h,
        sum(numbered.charged_count) as charged_count,
        sum(numbered.discharged_count) as discharged_count
    from numbered
    group by numbered.device_no, numbered.measured_month
),

spine as (
    select
        device_no,
        measured_month
    from months
    union
    select
        device_no,
        measured_month
    from gated_month
),

figures as (
    select
        spine.device_no,
        spine.measured_month,
        gated_month.gated_by,
        months.reset_at,
        months.reset_because,
        months.awake_h,
        months.charged_ah,
        months.discharged_ah,
        months.charged_count,
        months.discharged_count,
        tested.n,
        tested.rate_a,
        tested.rate_se_a,
        tested.balance_var,
        tested.balance_rate_a,
        tested.healthy_z,
        tested.healthy_rate_a,
        tested.change_z,
        tested.change_a,
        tested.change_months,
        case
            when months.charged_ah >= {{ var('counter_min_ah') }} then 1000 * months.charged_kwh / months.charged_ah
        end as implied_voltage_v,
        case
            when months.operating_s > 0 then months.operating_s / 3600 / nullif(months.operating_awake_h, 0)
        end as op_time_ratio,
        case
            when device_setting.chemistry = 'LFP' then device_setting.cell_count * {{ var('cell_window_lfp_v')[0] }}e0
            else device_setting.cell_count * {{ var('cell_window_nmc_v')[0] }}e0
        end as window_low_v,
        case
            when device_setting.chemistry = 'LFP' then device_setting.cell_count * {{ var('cell_window_lfp_v')[1] }}e0
            else device_setting.cell_count * {{ var('cell_window_nmc_v')[1] }}e0
        end as window_high_v
    from spine
    left join months on spine.device_no = months.device_no and spine.measured_month = months.measured_month
    left join gated_month
        on spine.device_no = gated_month.device_no and spine.measured_month = gated_month.measured_month
    left join device_setting on spine.device_no = device_setting.device_no
    left join tested
        on
            months.device_no = tested.device_no and months.measured_month = tested.measured_month
            and months.life_no = tested.life_no
),

flagged as (
    select
        *,
        coalesce(implied_voltage_v < window_low_v or implied_voltage_v > window_high_v, false) as is_voltage_off,
        coalesce(op_time_ratio < {{ var('operating_ratio_min') }}, false) as is_time_slow,
        coalesce(healthy_z > {{ var('audit_offset_z') }}, false) as is_beyond_healthy,
        coalesce(change_z > {{ var('audit_z') }}, false) as is_changed,
        case
            when charged_count = 0 or discharged_count = 0 then 'no counters'
            when coalesce(discharged_ah, 0e0) < {{ var('audit_min_ah') }} then 'too little charge moved'
            when coalesce(n, 0) < {{ var('audit_min_n') }} then 'too few wakings after a rest'
            when rate_a is null then 'SoC does not move'
        end as lacking
    from figures
),

-- what a healthy sensor has (0 +- 0.1 A) and what the balance says of this one, each by how sure it is
expected as (
    select
        *,
        case
            when
                gated_by is null and reset_at is null
                and not (is_voltage_off or is_time_slow or is_beyond_healthy or is_changed)
                then 1 / (1 + balance_var / power({{ var('current_offset_sd_a') }}, 2))
        end as balance_share
    from flagged
)

select
    case
        when discharged_ah >= {{ var('audit_min_ah') }} then 1 + rate_a * awake_h / discharged_ah
    end as charge_balance_ratio,
    case
        when discharged_ah >= {{ var('audit_min_ah') }}
            then 1 + (rate_a - {{ var('interval_z') }} * rate_se_a) * awake_h / discharged_ah
    end as charge_balance_lo,
    case
        when discharged_ah >= {{ var('audit_min_ah') }}
            then 1 + (rate_a + {{ var('interval_z') }} * rate_se_a) * awake_h / discharged_ah
    end as charge_balance_hi,
    rate_a as current_offset_a,
    rate_a - {{ var('interval_z') }} * rate_se_a as current_offset_lo_a,
    rate_a + {{ var('interval_z') }} * rate_se_a as current_offset_hi_a,
    balance_share * balance_rate_a as expected_offset_a,
    sqrt(balance_share * balance_var) as expected_offset_sd_a,
    change_a as offset_change_a,
    implied_voltage_v,
    op_time_ratio,
    charged_ah,
    discharged_ah,
    awake_h,
    cast(coalesce(n, 0) as bigint) as n,
    reset_at,
    case
        when gated_by is not null then 'insufficient'
        when reset_at is not null then 'reset'
        when is_voltage_off or is_time_slow or is_beyond_healthy or is_changed then 'drift'
        when lacking is not null then 'insufficient'
        else 'ok'
    end as verdict,
    case
        when gated_by is not null then concat('gated: ', gated_by)
        else nullif(
            concat_ws(
                '; ',
                reset_because,
                case when is_voltage_off then 'energy and charge imply a voltage outside the pack' end,
                case when is_time_slow then 'operating time runs slower than the clock' end,
                case
                    when is_beyond_healthy
                        then concat(
                            'charge and discharge do not balance: ', cast(round(healthy_rate_a, 2) as string),
                            ' A, more than a healthy sensor has'
                        )
                end,
                case
                    when is_changed
                        then concat(
                            'balance changed by ', cast(round(change_a, 2) as string), ' A within ',
                            cast(change_months as string), ' months'
                        )
                end,
                lacking
            ),
            ''
        )
    end as reason,
    device_no,
    measured_month
from expected
