{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per maximal run of messages of one state within one awake period and one KST day: what moved in it, with the
-- readings at its edges. The pair of messages that leads into a row belongs to that row's fragment. A charge is also
-- cut where a pair of messages is not integrated. Local; midnight cuts, a month's edge cuts too, and no threshold of
-- duration is applied: the stitching joins and judges.
with

rows_stated as (
    select
        *,
        -- shows the rest before: low current, just awake
        coalesce(
            abs(pack_current_a) <= {{ var('rest_current_max_a') }} and pack_voltage_v is not null
            and {{ seconds_between('awake_from_at', 'recorded_at') }} <= {{ var('rest_fresh_s') }},
            false
        ) as is_rest_reading
    from {{ ref('int_row_state') }}
),

place_minute as (
    select * from {{ ref('int_place_minute') }}
),

fragments as (
    select
        min(source) as source,
        fragment_no,
        min(awake_no) as awake_no,
        min(service_date) as service_date,
        min(state) as state,
        bool_or(is_waking) as is_first_of_period,
        min(recorded_at) as from_at,
        max(recorded_at) as to_at,
        count(*) as message_count,
        median(interval_s) filter (where not is_waking) as interval_median_s,
        -- charge
        {{ first_of('soc_pct') }} as soc_first_pct,
        min(recorded_at) filter (where soc_pct is not null) as soc_first_at,
        {{ last_of('soc_pct') }} as soc_last_pct,
        min(recorded_at) filter (where is_soc_step) as step_first_at,
        min_by(soc_pct, recorded_at) filter (where is_soc_step) as step_first_pct,
        min_by(integrated_ah, recorded_at) filter (where is_soc_step) as step_first_total_ah,
        max(recorded_at) filter (where is_soc_step) as step_last_at,
        max_by(soc_pct, recorded_at) filter (where is_soc_step) as step_last_pct,
        max_by(integrated_ah, recorded_at) filter (where is_soc_step) as step_last_total_ah,
        max_by(integrated_ah, recorded_at) as last_total_ah,
        coalesce({{ fixed_sum('charge_step_ah') }}, 0e0) as charge_ah,
        coalesce({{ fixed_sum('discharge_step_ah') }}, 0e0) as discharge_ah,
        coalesce({{ fixed_sum('charge_step_kwh') }}, 0e0) as charge_kwh,
        coalesce({{ fixed_sum('discharge_step_kwh') }}, 0e0) as discharge_kwh,
        coalesce({{ fixed_sum('pair_s') }}, 0e0) as integrated_s,
        -- a current without a voltage is a charge and no energy
        coalesce({{ fixed_sum('case when charge_step_kwh is not null then pair_s end') }}, 0e0) as energy_s,
        coalesce(sum({{ fixed('pair_s') }}) filter (where interval_s > {{ var('integral_max_s') }}), 0) as bridged_s,
        coalesce(sum({{ fixed('interval_s') }}) filter (where pair_s is null and not is_waking), 0) as lost_s,
        -- counters
        {% for counter in [
            'charged_total_ah', 'discharged_total_ah', 'charged_total_kwh', 'discharged_total_kwh',
            'plug_total_kwh', 'quick_total_kwh', 'operating_s', 'odometer_km'
        ] %}
        {{ first_of(counter) }} as {{ counter }}_first,
        {{ last_of(counter) }} as {{ counter }}_last,
        {% endfor %}
        max(cell_slot_count) as cell_slot_count,
        coalesce({{ fixed_sum('speed_step_km') }}, 0e0) as speed_km,
        count(speed_kmh) > 0 as has_speed,
        -- current, voltage, power
        {{ first_of('pack_current_a') }} as current_first_a,
        {{ last_of('pack_current_a') }} as current_last_a,
        {{ first_of('pack_voltage_v') }} as voltage_first_v,
        {{ last_of('pack_voltage_v') }} as voltage_last_v,
        max(pack_current_a) as current_max_a,
        max(pack_current_a * pack_voltage_v) / 1000 as power_max_kw,
        -- fast: one row of it is noise
        case
            when count(*) filter (where pack_current_a * pack_voltage_v > {{ var('dc_min_kw') }} * 1000) >= 2
                then {{ fixed_sum('interval_s', 'pack_current_a * pack_voltage_v > ' ~ var('dc_min_kw') ~ ' * 1000') }}
        end as fast_s,
        min(pack_current_a * pack_voltage_v) / 1000 as power_min_kw,
        -- temperatures
        {{ first_of('module_temp_c') }} as module_temp_first_c,
        {{ last_of('module_temp_c') }} as module_temp_last_c,
        max(module_max_c) as module_temp_max_c,
        {{ fixed_sum('module_temp_c') }} / nullif(count(module_temp_c), 0) as module_temp_mean_c,
        {{ fixed_sum('ambient_c') }} / nullif(count(ambient_c), 0) as ambient_mean_c,
        count(ambient_c) as ambient_n,
        -- flags
        count(*) filter (where is_cable_connected) as cable_count,
        count(*) filter (where is_charge_flagged) as charge_flag_count,
        count(*) filter (where is_fast_flagged) as fast_flag_count,
        count(*) filter (where is_v2l) as v2l_flag_count,
        count(*) filter (where is_relay_closed) as relay_count,
        -- the first reading that shows the rest before
        min(recorded_at) filter (where is_rest_reading) as rest_at,
        min_by(pack_voltage_v, recorded_at) filter (where is_rest_reading) as rest_pack_voltage_v,
        min_by(pack_current_a, recorded_at) filter (where is_rest_reading) as rest_current_a,
        min_by(cell_mean_mv, recorded_at) filter (where is_rest_reading) as rest_cell_mean_mv,
        min_by(soc_pct, recorded_at) filter (where is_rest_reading) as rest_soc_pct,
        min_by(module_temp_c, recorded_at) filter (where is_rest_reading) as rest_temp_c,
        device_no,
        measured_month
    from rows_stated
    group by device_no, measured_month, fragment_no
),

-- a charge's place: the fixes while it lasts, else the nearest standing one
placed as (
    select
        fragments.fragment_no,
        median(place_minute.lat) filter (
            where place_minute.seen_at between fragments.from_at and fragments.to_at
        ) as inside_lat,
        median(place_minute.lng) filter (
            where place_minute.seen_at between fragments.from_at and fragments.to_at
        ) as inside_lng,
        max_by(place_minute.lat, place_minute.seen_at) filter (where place_minute.seen_at < fragments.from_at)
            as before_lat,
        max_by(place_minute.lng, place_minute.seen_at) filter (where place_minute.seen_at < fragments.from_at)
            as before_lng,
        min_by(place_minute.lat, place_minute.seen_at) filter (where place_minute.seen_at > fragments.to_at)
            as after_lat,
        min_by(place_minute.lng, place_minute.seen_at) filter (where place_minute.seen_at > fragments.to_at)
            as after_lng,
        fragments.device_no,
        fragments.measured_month
    from fragments
    inner join place_minute
        on
            fragments.device_no = place_minute.device_no
            and fragments.measured_month = place_minute.measured_month
            and {{ seconds_between('place_minute.seen_at', 'fragments.from_at') }} <= {{ var('place_max_s') }}
            and {{ seconds_between('fragments.to_at', 'place_minute.seen_at') }} <= {{ var('place_max_s') }}
    -- where no current is delivered, a standstill in which the SoC rose is a charge
    where
        fragments.state in ('CHARGE', 'V2L')
        or (
            fragments.state in ('AWAKE', 'IDLE') and fragments.current_max_a is null
            and fragments.step_last_pct > fragments.soc_first_pct
        )
    group by fragments.device_no, fragments.measured_month, fragments.fragment_no
),

edged as (
    select
        *,
        coalesce(lead(is_first_of_period) over w, true) as is_last_of_period,
        {% for counter in [
            'charged_total_ah', 'discharged_total_ah', 'charged_total_kwh', 'discharged_total_kwh',
            'plug_total_kwh', 'quick_total_kwh', 'odometer_km'
        ] %}
        coalesce(
            {{ lag_known(counter ~ '_last') }} over (
                partition by device_no, measured_month, awake_no order by fragment_no
            ),
            {{ counter }}_first
        ) as {{ counter }}_from,
        {% endfor %}
        -- a charge goes on up to the first message after it: what its counters read there
        {% for counter in [
            'charged_total_ah', 'discharged_total_ah', 'charged_total_kwh', 'discharged_total_kwh'
        ] %}
        case
            when
                state in ('CHARGE', 'V2L')
                and lead(state) over (partition by device_no, measured_month, awake_no order by fragment_no) <> state
                then
                    lead({{ counter }}_first) over (
                        partition by device_no, measured_month, awake_no order by fragment_no
                    )
        end as {{ counter }}_after,
        {% endfor %}
        last_total_ah - (charge_ah - discharge_ah) as total_before_ah
    from fragments
    window w as ({{ in_time_order('fragment_no') }})
)

select
    edged.source,
    edged.fragment_no,
    edged.awake_no,
    edged.service_date,
    edged.state,
    edged.from_at,
    edged.to_at,
    {{ seconds_between('edged.from_at', 'edged.to_at') }} as duration_s,
    edged.message_count,
    edged.interval_median_s,
    edged.is_first_of_period,
    edged.is_last_of_period,
    edged.soc_first_pct,
    edged.soc_first_at,
    edged.soc_last_pct,
    edged.step_first_at,
    edged.step_first_pct,
    edged.step_first_total_ah - edged.total_before_ah as step_first_ah,
    edged.step_last_at,
    edged.step_last_pct,
    edged.step_last_total_ah - edged.total_before_ah as step_last_ah,
    edged.charge_ah,
    edged.discharge_ah,
    edged.charge_ah - edged.discharge_ah as net_ah,
    edged.charge_kwh,
    edged.discharge_kwh,
    edged.integrated_s,
    edged.energy_s,
    cast(edged.bridged_s as double) as bridged_s,
    cast(edged.lost_s as double) as lost_s,
    edged.charged_total_ah_from as charged_total_from_ah,
    edged.charged_total_ah_last as charged_total_to_ah,
    edged.charged_total_ah_after as charged_total_after_ah,
    edged.discharged_total_ah_from as discharged_total_from_ah,
    edged.discharged_total_ah_last as discharged_total_to_ah,
    edged.discharged_total_ah_after as discharged_total_after_ah,
    edged.charged_total_kwh_from as charged_total_from_kwh,
    edged.charged_total_kwh_last as charged_total_to_kwh,
    edged.charged_total_kwh_after as charged_total_after_kwh,
    edged.discharged_total_kwh_from as discharged_total_from_kwh,
    edged.discharged_total_kwh_last as discharged_total_to_kwh,
    edged.discharged_total_kwh_after as discharged_total_after_kwh,
    edged.plug_total_kwh_from as plug_total_from_kwh,
    edged.plug_total_kwh_last as plug_total_to_kwh,
    edged.quick_total_kwh_from as quick_total_from_kwh,
    edged.quick_total_kwh_last as quick_total_to_kwh,
    edged.operating_s_first as operating_first_s,
    edged.operating_s_last as operating_last_s,
    edged.odometer_km_from as odometer_from_km,
    edged.odometer_km_last as odometer_to_km,
    edged.cell_slot_count,
    edged.speed_km,
    edged.has_speed,
    edged.current_first_a,
    edged.current_last_a,
    edged.voltage_first_v,
    edged.voltage_last_v,
    edged.current_max_a,
    edged.power_max_kw,
    coalesce(edged.fast_s, 0e0) as fast_s,
    edged.power_min_kw,
    edged.module_temp_first_c,
    edged.module_temp_last_c,
    edged.module_temp_max_c,
    edged.module_temp_mean_c,
    edged.ambient_mean_c,
    edged.ambient_n,
    edged.cable_count,
    edged.charge_flag_count,
    edged.fast_flag_count,
    edged.v2l_flag_count,
    edged.relay_count,
    edged.rest_at,
    edged.rest_pack_voltage_v,
    edged.rest_current_a,
    edged.rest_cell_mean_mv,
    edged.rest_soc_pct,
    edged.rest_temp_c,
    coalesce(placed.inside_lat, placed.before_lat, placed.after_lat) as lat,
    coalesce(placed.inside_lng, placed.before_lng, placed.after_lng) as lng,
    edged.device_no,
    edged.measured_month
from edged
left join placed
    on
        edged.device_no = placed.device_no and edged.measured_month = placed.measured_month
        and edged.fragment_no = placed.fragment_no
