{{ config(unique_key=['device_no'], tags=['stitched']) }}
-- One row per charging session: one connection with at least one charging period, pauses up to half an hour merged,
-- never cut at midnight or at a month's end; it belongs to the KST day and month of its start. A charge that only a
-- silence shows is a session too (is_inferred). Current that leaves a connected car makes a session of mode V2L.
with

parts as (
    select * from {{ ref('int_session_part') }}
),

fragments as (
    select * from {{ ref('int_stitched_fragment') }}
),

counter_trust as (
    select * from {{ ref('int_counter_trust') }}
),

paused as (
    select
        *,
        coalesce(
            {{ seconds_between('max(to_at) over (w rows between unbounded preceding and 1 preceding)', 'from_at') }}
            > {{ var('charge_min_s') }},
            false
        ) as is_after_pause
    from parts
    window w as (partition by device_no, session_no order by from_at, to_at)
),

-- charge up to each part; a pause, a pair of messages without current and a silence that no counter bridges are holes
ordered as (
    select
        *,
        coalesce(sum({{ fixed('net_ah') }}) over (w rows between unbounded preceding and 1 preceding), 0) as before_ah,
        count(case when is_after_pause or lost_s > 0 or (state = 'SILENCE' and net_ah is null) then 1 end) over (
            w rows between unbounded preceding and current row
        ) as hole_no,
        count(case when is_after_pause then 1 end) over (w rows between unbounded preceding and current row)
            as pause_no
    from paused
    window w as (partition by device_no, session_no order by from_at, to_at)
),

periods as (
    select
        session_no,
        count(*) as period_count,
        device_no
    from (
        select
            session_no,
            pause_no,
            device_no
        from ordered
        group by device_no, session_no, pause_no
        having sum({{ fixed('charging_s') }}) >= {{ var('charge_min_s') }}
    ) as long_enough
    group by device_no, session_no
),

stretches as (
    select
        session_no,
        max_by(step_last_pct, step_last_at) filter (where step_last_at is not null)
        - min_by(step_first_pct, step_first_at) filter (where step_first_at is not null) as delta_pct,
        max_by(cast(before_ah as double) + step_last_ah, step_last_at) filter (where step_last_at is not null)
        - min_by(cast(before_ah as double) + step_first_ah, step_first_at) filter (where step_first_at is not null)
            as delta_ah,
        device_no
    from ordered
    group by device_no, session_no, hole_no
),

steps as (
    select
        session_no,
        {{ fixed_sum('delta_pct') }} as step_soc_delta_pct,
        {{ fixed_sum('delta_ah') }} as step_charge_ah,
        device_no
    from stretches
    group by device_no, session_no
),

sums as (
    select
        session_no,
        min(direction) as direction,
        bool_and(is_inferred) as is_inferred,
        concat_ws(
            ', ',
            case when bool_or(evidence = 'current') then 'current' end,
            case when bool_or(evidence = 'plug counter') then 'plug counter' end,
            case when bool_or(evidence = 'charge counter') then 'charge counter' end,
            case when bool_or(evidence = 'SoC') then 'SoC' end
        ) as evidence,
        min(from_at) as from_at,
        max(to_at) as to_at,
        -- its edges that are silences: how long and how much
        min(case when not is_inferred then from_at end) as seen_from_at,
        max(case when not is_inferred then to_at end) as seen_to_at,
        {{ first_of('soc_first_pct', 'from_at') }} as soc_start_pct,
        {{ last_of('soc_last_pct', 'to_at') }} as soc_end_pct,
        min_by(step_first_pct, step_first_at) filter (where step_first_at is not null) as step_soc_first_pct,
        max_by(step_last_pct, step_last_at) filter (where step_last_at is not null) as step_soc_last_pct,
        {{ fixed_sum('charging_s') }} as charging_s,
        {{ fixed_sum('silence_s') }} as silence_s,
        {{ fixed_sum('integrated_s') }} as integrated_s,
        {{ fixed_sum('energy_s') }} as energy_s,
        {{ fixed_sum('bridged_s') }} as bridged_s,
        {{ fixed_sum('lost_s') }} as lost_s,
        {{ fixed_sum('integral_ah') }} as charge_integral_ah,
        case when sum(energy_s) > 0 then {{ fixed_sum('integral_kwh') }} end as energy_integral_kwh,
        case when bool_and(counter_ah is not null) then {{ fixed_sum('counter_ah') }} end as charge_counter_ah,
        case when bool_and(counter_kwh is not null) then {{ fixed_sum('counter_kwh') }} end as energy_counter_kwh,
        {{ fixed_sum('plug_step_kwh') }} as plug_kwh,
        {{ fixed_sum('quick_step_kwh') }} as quick_kwh,
        max(power_max_kw) as power_max_kw,
        {{ fixed_sum('fast_s') }} as fast_s,
        {{ first_of('module_temp_first_c', 'from_at') }} as temp_start_c,
        max(module_temp_max_c) as temp_max_c,
        {{ fixed_sum('module_temp_mean_c * message_count') }}
        / nullif(sum(message_count) filter (where module_temp_mean_c is not null), 0) as temp_mean_c,
        cast(sum(cable_count + charge_flag_count) as bigint) as flag_count,
        cast(sum(fast_flag_count) as bigint) as fast_flag_count,
        cast(sum(v2l_flag_count) as bigint) as v2l_flag_count,
        cast(sum(message_count) as bigint) as message_count,
        max_by(lat, message_count * 100000 - coalesce(order_no, 0) % 100000) filter (where lat is not null) as lat,
        max_by(lng, message_count * 100000 - coalesce(order_no, 0) % 100000) filter (where lng is not null) as lng,
        device_no
    from parts
    group by device_no, session_no
),

-- what came in over a silence at the edge of a session says when it began or ended, at the current seen beside it
edge as (
    select
        ordered.session_no,
        max(case
            when ordered.to_at <= sums.seen_from_at and ordered.from_at = sums.from_at and ordered.state = 'SILENCE'
                then
                    -- a SoC that is lower after it says that no charge came in
                    greatest(0e0, least(
                        ordered.silence_s,
                        coalesce(
                            ordered.counter_ah,
                            (ordered.soc_last_pct - ordered.soc_first_pct)
                            * steps.step_charge_ah / nullif(steps.step_soc_delta_pct, 0)
                        ) / nullif(greatest(ordered.current_last_a, {{ var('charge_current_min_a') }}), 0) * 3600
                    ))
        end) as before_s,
        max(case
            when ordered.from_at >= sums.seen_to_at and ordered.to_at = sums.to_at and ordered.state = 'SILENCE'
                then
                    -- a SoC that is lower after it says that no charge came in
                    greatest(0e0, least(
                        ordered.silence_s,
                        coalesce(
                            ordered.counter_ah,
                            (ordered.soc_last_pct - ordered.soc_first_pct)
                            * steps.step_charge_ah / nullif(steps.step_soc_delta_pct, 0)
                        ) / nullif(greatest(ordered.current_first_a, {{ var('charge_current_min_a') }}), 0) * 3600
                    ))
        end) as after_s,
        coalesce({{ fixed_sum(
            'case when ordered.to_at <= sums.seen_from_at or ordered.from_at >= sums.seen_to_at'
            ~ ' then ordered.silence_s end'
        ) }}, 0e0) as edge_silence_s,
        ordered.device_no
    from ordered
    inner join sums on ordered.device_no = sums.device_no and ordered.session_no = sums.session_no
    left join steps on ordered.device_no = steps.device_no and ordered.session_no = steps.session_no
    where not sums.is_inferred
    group by ordered.device_no, ordered.session_no
),

-- confirmed: it lasted, and a flag, the SoC or a counter says so too (DOMAIN 5)
confirmed as (
    select
        sums.*,
        case
            when edge.before_s is not null then {{ add_seconds('sums.seen_from_at', '-edge.before_s') }}
            else coalesce(sums.seen_from_at, sums.from_at)
        end as started_at,
        case
            when edge.after_s is not null then {{ add_seconds('sums.seen_to_at', 'edge.after_s') }}
            else coalesce(sums.seen_to_at, sums.to_at)
        end as ended_at,
        sums.silence_s - coalesce(edge.edge_silence_s, 0) + coalesce(edge.before_s, 0) + coalesce(edge.after_s, 0)
        + sums.lost_s as gap_s,
        steps.step_soc_delta_pct,
        steps.step_charge_ah,
        coalesce(periods.period_count, 0) as period_count
    from sums
    left join edge on sums.device_no = edge.device_no and sums.session_no = edge.session_no
    left join steps on sums.device_no = steps.device_no and sums.session_no = steps.session_no
    left join periods on sums.device_no = periods.device_no and sums.session_no = periods.session_no
    where
        sums.is_inferred
        -- rows so far apart that no two make a charging time: the counters, or the SoC, say that it charged
        or (
            sums.direction = 'in' and sums.charging_s < {{ var('charge_min_s') }}
            and coalesce(
                sums.energy_counter_kwh >= {{ var('inferred_min_kwh') }},
                sums.charge_counter_ah >= {{ var('inferred_min_ah') }},
                sums.soc_end_pct - sums.soc_start_pct >= {{ var('inferred_min_soc_pct') }}
            )
        )
        or (
            sums.charging_s >= {{ var('charge_min_s') }}
            and (
                sums.v2l_flag_count > 0
                or (sums.direction = 'out' and sums.energy_integral_kwh >= {{ var('v2l_min_kwh') }})
                or (
                    sums.direction = 'in'
                    and (
                        sums.flag_count > 0 or sums.soc_end_pct > sums.soc_start_pct
                        or sums.energy_counter_kwh > 0 or sums.charge_counter_ah > 0
                    )
                )
            )
        )
),

judged as (
    select
        *,
        {{ seconds_between('started_at', 'ended_at') }} as duration_s,
        -- a charge that is all seen has an integral; one with a silence has only the counter
        coalesce(
            not is_inferred and silence_s = 0
            and integrated_s > 0 and integrated_s >= {{ var('integral_share_min') }} * (integrated_s + lost_s),
            false
        ) as is_charge_whole,
        coalesce(
            not is_inferred and silence_s = 0
            and energy_s > 0 and energy_s >= {{ var('integral_share_min') }} * (integrated_s + lost_s),
            false
        ) as is_energy_whole,
        -- rows too far apart leave out the minutes in which the current rises and falls
        coalesce(bridged_s <= {{ var('bridged_share_fine') }} * integrated_s, false) as is_integral_fine,
        coalesce(
            energy_counter_kwh is not null
            and not (
                energy_counter_kwh < {{ var('counter_step_kwh') }}
                and coalesce(energy_integral_kwh, 0e0) > {{ var('counter_still_kwh') }}
            ),
            false
        ) as is_counter_moving
    from confirmed
),

-- counters that failed their audit are not believed where there is anything else
audited as (
    select
        judged.*,
        coalesce(counter_trust.is_failed, false) as is_counter_failed,
        -- what leaves the car through its socket is so small a current that the offset of the sensor is a part of it
        case
            when
                judged.direction = 'out'
                and abs(counter_trust.expected_offset_a) * judged.charging_s / 3600
                <= {{ var('offset_share_max') }} * judged.charge_integral_ah
                then counter_trust.expected_offset_a * judged.charging_s / 3600
            else 0e0
        end as offset_ah
    from judged
    left join counter_trust
        on
            judged.device_no = counter_trust.device_no
            and {{ month_of(kst_day('judged.started_at')) }} = counter_trust.measured_month
),

methods as (
    select
        *,
        coalesce(offset_ah * energy_integral_kwh / nullif(charge_integral_ah, 0), 0e0) as offset_kwh,
        case
            when is_counter_failed and is_energy_whole then 'integral, counter failed its audit'
            when is_counter_failed and is_counter_moving then 'counter, failed its audit'
            -- the integral lies within the resolution of the counter, and is finer
            when
                is_counter_moving and is_energy_whole and is_integral_fine
                and abs(energy_counter_kwh - energy_integral_kwh) <= {{ var('counter_agrees_kwh') }}
                then 'integral, counter agrees'
            when is_counter_moving then 'counter'
            when is_energy_whole then 'integral'
            when is_inferred and silence_s = 0 then 'none: no current and no counter'
            when is_inferred then 'none: no counter over the silence'
            when silence_s > 0 then 'none: silence without a counter'
            when energy_s < {{ var('integral_share_min') }} * integrated_s then 'none: no voltage and no counter'
            when energy_integral_kwh > 0 then 'integral of parts'
            else 'none: rows too far apart and no counter'
        end as energy_method
    from audited
),

drives as (
    select
        case when is_silence then to_at else from_at end as drive_at,
        device_no
    from {{ ref('int_drive') }}
),

neighboured as (
    select
        session_no,
        started_at,
        ended_at,
        lag(ended_at) over (partition by device_no order by started_at, session_no) as session_before_at,
        lead(started_at) over (partition by device_no order by started_at, session_no) as session_after_at,
        device_no
    from methods
),

-- every drive, and both ends of every session, in one order
marks as (
    select
        drive_at as mark_at,
        drive_at,
        cast(null as bigint) as session_no,
        cast(null as boolean) as is_start,
        cast(null as timestamp) as session_before_at,
        cast(null as timestamp) as session_after_at,
        device_no
    from drives
    union all
    select
        started_at as mark_at,
        cast(null as timestamp) as drive_at,
        session_no,
        true as is_start,
        session_before_at,
        session_after_at,
        device_no
    from neighboured
    union all
    select
        ended_at as mark_at,
        cast(null as timestamp) as drive_at,
        session_no,
        false as is_start,
        session_before_at,
        session_after_at,
        device_no
    from neighboured
),

between_drives as (
    select
        *,
        max(drive_at) over (
            partition by device_no order by mark_at range between unbounded preceding and current row
        ) as drive_before_at,
        min(drive_at) over (
            partition by device_no order by mark_at range between current row and unbounded following
        ) as drive_after_at
    from marks
),

-- a connection lies between two drives and beside no other session
barred as (
    select
        session_no,
        greatest(max(case when is_start then drive_before_at end), max(session_before_at)) as not_before_at,
        least(min(case when not is_start then drive_after_at end), min(session_after_at)) as not_after_at,
        device_no
    from between_drives
    where session_no is not null
    group by device_no, session_no
),

connections as (
    select
        barred.session_no,
        min(fragments.from_at) as connected_at,
        max(fragments.to_at) as disconnected_at,
        barred.device_no
    from barred
    inner join fragments
        on
            barred.device_no = fragments.device_no
            and fragments.from_at >= coalesce(barred.not_before_at, fragments.from_at)
            and fragments.to_at <= coalesce(barred.not_after_at, fragments.to_at)
    where
        fragments.state <> 'DRIVE'
        and fragments.cable_count + fragments.charge_flag_count + fragments.v2l_flag_count > 0
    group by barred.device_no, barred.session_no
)

select
    {{ short_hash("methods.device_no || '|session|' || cast(methods.from_at as varchar)") }} as session_id,
    {{ kst_day('methods.started_at') }} as service_date,
    methods.started_at,
    methods.ended_at,
    case
        when methods.direction = 'out' then 'V2L'
        when methods.fast_flag_count > 0 then 'DC'
        when methods.fast_s >= {{ var('charge_min_s') }} then 'DC'
        when
            methods.quick_kwh >= {{ var('inferred_min_kwh') }}
            and methods.quick_kwh * 2 >= coalesce(methods.plug_kwh, 0)
            then 'DC'
        when not methods.is_inferred and methods.power_max_kw is not null then 'AC'
        -- so much in so short a time
        when methods.energy_counter_kwh > {{ var('dc_min_kw') }} * nullif(methods.duration_s, 0) / 3600 then 'DC'
        when methods.quick_kwh is not null and methods.plug_kwh >= {{ var('inferred_min_kwh') }} then 'AC'
        else 'UNKNOWN'
    end as mode,
    methods.is_inferred,
    methods.evidence,
    methods.soc_start_pct,
    methods.soc_end_pct,
    case when methods.direction = 'out' then -1 else 1 end * (methods.offset_kwh + case
        when methods.energy_method like 'counter%' then methods.energy_counter_kwh
        when methods.energy_method like 'integral%' then methods.energy_integral_kwh
    end) as energy_kwh,
    case when methods.direction = 'out' then -1 else 1 end * (methods.offset_ah + case
        when methods.energy_method like 'counter%' and methods.charge_counter_ah is not null
            then methods.charge_counter_ah
        -- over a silence that only the energy counter saw, the charge seen awake is not the session's
        when methods.energy_method like 'integral%' or methods.is_charge_whole then methods.charge_integral_ah
    end) as charge_ah,
    methods.energy_method,
    case when methods.direction = 'out' then -methods.offset_kwh else methods.offset_kwh end as offset_kwh,
    methods.energy_counter_kwh,
    methods.energy_integral_kwh,
    methods.charge_counter_ah,
    methods.charge_integral_ah,
    case
        when methods.is_energy_whole
            then
                100 * (methods.energy_counter_kwh - methods.energy_integral_kwh)
                / nullif(methods.energy_integral_kwh, 0)
    end as disagreement_pct,
    methods.bridged_s / nullif(methods.integrated_s, 0) as bridged_share,
    case when methods.is_inferred then 1e0 else least(1e0, methods.gap_s / nullif(methods.duration_s, 0)) end
        as gap_share,
    cast(methods.period_count as integer) as period_count,
    methods.power_max_kw,
    methods.energy_integral_kwh / nullif(methods.energy_s, 0) * 3600 as power_mean_kw,
    case when not methods.is_inferred then methods.charging_s / 60 end as charging_min,
    least(connections.connected_at, methods.started_at) as connected_at,
    greatest(connections.disconnected_at, methods.ended_at) as disconnected_at,
    {{ seconds_between(
        'least(connections.connected_at, methods.started_at)',
        'greatest(connections.disconnected_at, methods.ended_at)'
    ) }} / 60 as connected_min,
    methods.temp_start_c,
    methods.temp_max_c,
    methods.temp_mean_c,
    methods.charge_integral_ah / nullif(methods.integrated_s, 0) * 3600 as current_mean_a,
    methods.step_soc_first_pct,
    methods.step_soc_last_pct,
    methods.step_soc_delta_pct,
    methods.step_charge_ah,
    methods.lat,
    methods.lng,
    methods.message_count,
    methods.device_no,
    {{ month_of(kst_day('methods.started_at')) }} as measured_month
from methods
left join connections on methods.device_no = connections.device_no and methods.session_no = connections.session_no
