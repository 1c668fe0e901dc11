-- One row per BMS message of the partitions in scope: contract names with units, the device's decisions (sign of the
-- current, scale of the voltage) applied, listed sentinels turned into NULL, suspect values flagged and kept.
-- Only rules that need nothing but the row itself; rules about neighbours belong to the intermediate models.
with

raw_bms as (
    select * from {{ raw_rows('bms') }}
),

layout_setting as (
    select * from {{ source('ops', 'layout_setting') }}
),

month_setting as (
    select * from {{ source('ops', 'month_setting') }}
),

device_setting as (
    select * from {{ source('ops', 'device_setting') }}
),

-- which channels the car lacks: looked up once per car, not once per row
car as (
    select
        cell_count,
        temp_sensor_count,
        insulation_cap_kohm,
        chemistry = 'LFP' as is_lfp,
        nullif(unsupported_channels, 'none') as unsupported_channels,
        {%- for channel in var('zero_channels') + var('flag_channels') %}
        position(' {{ channel }} ' in concat(' ', unsupported_channels, ' ')) > 0 as lacks_{{ channel }},
        {%- endfor %}
        device_no
    from device_setting
),

decided as (
    select
        raw_bms.*,
        raw_bms.pack_current * case
            when month_setting.device_no is null then layout_setting.current_sign
            else month_setting.current_sign
        end as signed_current_a,
        raw_bms.pack_volt * layout_setting.voltage_scale as scaled_voltage_v,
        -- an export from 0 to 1 has no more decimals than this
        round(raw_bms.soc * coalesce(layout_setting.soc_scale, 1), 3) as scaled_soc_pct,
        round(raw_bms.socd * coalesce(layout_setting.soc_scale, 1), 3) as scaled_socd_pct,
        car.cell_count as decided_cell_count,
        {%- for channel in var('zero_channels') + var('flag_channels') %}
        car.lacks_{{ channel }},
        {%- endfor %}
        car.unsupported_channels,
        car.temp_sensor_count as decided_sensor_count,
        car.insulation_cap_kohm,
        car.is_lfp
    from raw_bms
    left join layout_setting
        on raw_bms.device_no = layout_setting.device_no and raw_bms.layout_id = layout_setting.layout_id
    left join month_setting
        on
            raw_bms.device_no = month_setting.device_no and raw_bms.layout_id = month_setting.layout_id
            and raw_bms.measured_month = month_setting.measured_month
    left join car
        on raw_bms.device_no = car.device_no
),

renamed as (
    select
        -- time
        time as recorded_at,
        msg_time as message_at,
        seq as sequence_no,
        start_time as started_text,
        msg_id as message_id,
        -- motion
        nullif(odometer, 0) as odometer_km,
        emobility_spd as speed_kmh,
        drive_motor_spd1 as motor_1_rpm,
        {{ supported('drive_motor_spd2') }} as motor_2_rpm,
        -- pack
        scaled_voltage_v as pack_voltage_v,
        signed_current_a as pack_current_a,
        {{ supported('batt_pw') }} as pack_power_kw,
        case when not {{ is_soc_no_value('scaled_soc_pct') }} then scaled_soc_pct end as soc_pct,
        case when not {{ is_soc_no_value('scaled_socd_pct') }} then scaled_socd_pct end as soc_display_pct,
        {{ supported('soh') }} as soh_bms_pct,
        {{ supported('acceptable_chrg_pw') }} as charge_power_limit_kw,
        {{ supported('acceptable_dischrg_pw') }} as discharge_power_limit_kw,
        {{ supported('inverter_capacity_volt') }} as inverter_capacitor_v,
        insul_resistance as insulation_kohm,
        {{ supported('sub_batt_volt') }} as aux_voltage_v,
        {{ supported('airbag_hwire_duty') }} as airbag_wire_duty_pct,
        -- lifetime counters; a pack that has never been charged is none, and some read 0 until the BMS is awake
        nullif(cumul_current_chrgd, 0) as charged_total_ah,
        nullif(cumul_current_dischrgd, 0) as discharged_total_ah,
        nullif(cumul_pw_chrgd, 0) as charged_total_kwh,
        nullif(cumul_pw_dischrgd, 0) as discharged_total_kwh,
        cumul_energy_chrgd as plug_charged_total_kwh,
        cumul_energy_chrgd_q as quick_charged_total_kwh,
        chrg_cnt as charge_count,
        chrg_cnt_q as quick_charge_count,
        {{ supported('op_time') }} as operating_time_s,
        trip_chrg_pw as trip_charged_kwh,
        trip_dischrg_pw as trip_discharged_kwh,
        est_chrg_time as charge_time_left_min,
        -- flags
        bms_running as is_bms_running,
        main_relay_conn as is_main_relay_closed,
        {{ supported('chrg_cable_conn') }} as is_cable_connected,
        {{ supported('slow_chrg_port_conn') }} as is_slow_port_connected,
        {{ supported('fast_chrg_port_conn') }} as is_fast_port_connected,
        {{ supported('fast_chrg_relay_on') }} as is_fast_relay_closed,
        {{ supported('v2l') }} as is_v2l,
        batt_fan_running as is_fan_running,
        hvac_list1 as hvac_1_text,
        hvac_list2 as hvac_2_text,
        -- temperatures
        {{ temperature('ext_temp') }} as ambient_c,
        {{ temperature('int_temp') }} as cabin_c,
        {{ temperature('batt_internal_temp') }} as pack_internal_c,
        {{ temperature('batt_coolant_inlet_temp') }} as coolant_inlet_c,
        {{ temperature('batt_ltr_rear_temp') }} as pack_ltr_rear_c,
        {{ temperature('batt_pra_busbar_temp') }} as relay_busbar_c,
        {{ temperature('mod_avg_temp') }} as bms_module_mean_c,
        {{ temperature('mod_max_temp') }} as bms_module_max_c,
        {{ temperature('mod_min_temp') }} as bms_module_min_c,
        temp_n as module_temp_n,
        temp_min_c as module_min_c,
        temp_max_c as module_max_c,
        temp_mean_c as module_mean_c,
        -- sensors that do not exist and read 0 for ever add nothing to the sum, only to the count
        temp_mean_c * case
            when temp_n > decided_sensor_count then temp_n / nullif(decided_sensor_count * 1e0, 0)
            else 1e0
        end as pack_temp_c,
        temp_sentinel_n as module_temp_sentinel_n,
        -- cells
        max_cell_volt as bms_cell_max_v,
        max_cell_volt_no as bms_cell_max_no,
        min_cell_volt as bms_cell_min_v,
        min_cell_volt_no as bms_cell_min_no,
        cell_volt_dispersion as bms_cell_dispersion_v,
        min_deter as bms_min_deter_pct,
        min_deter_cell_no as bms_min_deter_cell_no,
        max_deter_cell_no as bms_max_deter_cell_no,
        cell_n,
        cell_min_mv,
        cell_max_mv,
        cell_mean_mv,
        cell_sum_mv,
        cell_sentinel_n,
        cell_placeholder_n,
        cell_unfit_n,
        -- no value (DOMAIN 3, kind 2): what the NULLs above were
        unsupported_channels,
        coalesce(odometer = 0, false) as is_odometer_zero,
        {{ is_soc_no_value('scaled_soc_pct') }} as is_soc_no_value,
        coalesce(insul_resistance = 0, false) as is_insulation_zero,
        coalesce(insul_resistance >= insulation_cap_kohm, false) as is_insulation_censored,
        -- suspect (DOMAIN 3, kind 3): kept, left out of averages
        coalesce(emobility_spd < 0 or emobility_spd > {{ var('speed_max_kmh') }}, false) as is_speed_suspect,
        coalesce(abs(signed_current_a) > {{ var('current_max_a') }}, false) as is_current_suspect,
        coalesce(
            cell_unfit_n > 0 or cell_min_mv < {{ var('cell_min_mv') }} or cell_max_mv > {{ var('cell_max_mv') }},
            false
        ) as is_cell_suspect,
        coalesce(
            -- only a complete list of cells has a sum that can be compared
            cell_n = coalesce(decided_cell_count, cell_n + cell_sentinel_n + cell_placeholder_n + cell_unfit_n)
            and abs(cell_sum_mv / 1000e0 - scaled_voltage_v)
            > greatest({{ var('pack_mismatch_share') }} * scaled_voltage_v, {{ var('pack_mismatch_v') }}),
            false
        ) as is_pack_voltage_suspect,
        coalesce(
            temp_min_c < {{ var('temperature_min_c') }} or temp_max_c > {{ var('temperature_max_c') }},
            false
        ) as is_temperature_suspect,
        -- lists, last: a model that does not name them never reads them
        cell_mv,
        mod_temp_dc as module_temp_dc,
        -- lineage and partition
        layout_id,
        source_file,
        source_row,
        device_no,
        measured_month
    from decided
)

select * from renamed
