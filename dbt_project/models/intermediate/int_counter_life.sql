{{ config(materialized='ephemeral', tags=['stitched']) }}
-- One row per awake period: its counters, and the life of the counters it belongs to. A new life begins
-- where a counter falls, or jumps by more net charge than the pack holds: a reset, or another pack. What moved over the
-- silence before a period counts with the period. Stitched, gated months left out.
with

periods as (
    select * from {{ ref('int_awake_period') }}
    where {{ devices_in_scope() }} and {{ outside_gates() }}
),

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
    where {{ devices_in_scope() }}
),

-- a counter at 0 has never counted
read as (
    select
        periods.from_at,
        periods.to_at,
        {{ seconds_between('periods.from_at', 'periods.to_at') }} / 3600 as awake_h,
        case
            when {{ seconds_between('periods.from_at', 'periods.soc_first_at') }} <= {{ var('rest_fresh_s') }}
                then periods.soc_first_pct
        end as soc_pct,
        nullif(periods.charged_total_first_ah, 0) as charged_first_ah,
        nullif(periods.charged_total_last_ah, 0) as charged_last_ah,
        nullif(periods.discharged_total_first_ah, 0) as discharged_first_ah,
        nullif(periods.discharged_total_last_ah, 0) as discharged_last_ah,
        nullif(periods.charged_total_first_kwh, 0) as charged_first_kwh,
        nullif(periods.charged_total_last_kwh, 0) as charged_last_kwh,
        periods.operating_last_s - periods.operating_first_s as operating_s,
        periods.pack_voltage_last_v,
        case
            when device_setting.capacity_nominal_ah is null then {{ var('counter_jump_ah') }}e0
            else {{ var('counter_jump_share') }} * device_setting.capacity_nominal_ah
        end as jump_ah,
        periods.device_no,
        periods.measured_month
    from periods
    left join device_setting on periods.device_no = device_setting.device_no
),

followed as (
    select
        *,
        {{ seconds_between('lag(to_at) over w', 'from_at') }} / 3600 as silent_h,
        {{ lag_known('charged_last_ah') }} over w as charged_before_ah,
        {{ lag_known('discharged_last_ah') }} over w as discharged_before_ah,
        {{ lag_known('charged_last_kwh') }} over w as charged_before_kwh
    from read
    window w as (partition by device_no order by from_at)
),

judged as (
    select
        *,
        coalesce(
            charged_last_ah < charged_first_ah - {{ var('counter_reset_ah') }}
            or discharged_last_ah < discharged_first_ah - {{ var('counter_reset_ah') }},
            false
        ) as is_reset_inside,
        coalesce(
            -- a counter that begins anew may read 0 first, which alone is no reading
            coalesce(charged_first_ah, charged_last_ah) < charged_before_ah - {{ var('counter_reset_ah') }}
            or coalesce(discharged_first_ah, discharged_last_ah)
            < discharged_before_ah - {{ var('counter_reset_ah') }}
            or abs((charged_first_ah - charged_before_ah) - (discharged_first_ah - discharged_before_ah)) > jump_ah,
            false
        ) as is_reset_before
    from followed
),

-- a reset, or another pack, begins a new life of the counters
begun as (
    select
        *,
        is_reset_before
        or coalesce(lag(is_reset_inside) over (partition by device_no order by from_at), false) as is_new_life
    from judged
),

lives as (
    select
        *,
        cast(sum(case when is_new_life then 1 else 0 end) over (
            partition by device_no order by from_at rows between unbounded preceding and current row
        ) as bigint) as life_no
    from begun
),

placed as (
    select
        *,
        row_number() over w = 1 as is_first,
        case when row_number() over w > 1 then charged_before_ah end as charged_known_ah,
        case when row_number() over w > 1 then discharged_before_ah end as discharged_known_ah,
        case when row_number() over w > 1 then charged_before_kwh end as charged_known_kwh
    from lives
    window w as (partition by device_no, life_no order by from_at)
),

moved as (
    select
        *,
        case when not is_reset_inside then charged_last_ah - coalesce(charged_known_ah, charged_first_ah) end
            as charged_ah,
        case when not is_reset_inside then discharged_last_ah - coalesce(discharged_known_ah, discharged_first_ah) end
            as discharged_ah,
        case when not is_reset_inside then charged_last_kwh - coalesce(charged_known_kwh, charged_first_kwh) end
            as charged_kwh,
        coalesce(
            sum(awake_h) over (
                partition by device_no, life_no order by from_at rows between unbounded preceding and 1 preceding
            ),
            0e0
        ) as awake_before_h,
        -- the silence before a life's first waking belongs to none
        sum(case when is_first then 0e0 else silent_h end) over (
            partition by device_no, life_no order by from_at rows between unbounded preceding and current row
        ) as silent_before_h
    from placed
)

select * from moved
