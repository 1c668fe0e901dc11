{{ config(unique_key=['device_no'], tags=['health']) }}
-- One row per device and month, from the device's first month to its last one: state of health as the car claims it, as
-- its BMS's own capacity echoes it, as rest voltages and coulombs say independently, and fused; with intervals, bias of
-- the BMS's state of charge, and trend. A gated month is a row without figures.
{%- set figures = [
    'soh_bms_pct', 'soh_charge_pct', 'soh_charge_lo_pct', 'soh_charge_hi_pct', 'soh_ocv_pct', 'soh_ocv_lo_pct',
    'soh_ocv_hi_pct', 'soh_pct', 'soh_lo_pct', 'soh_hi_pct', 'slope_pct_per_year', 'slope_lo_pct_per_year',
    'slope_hi_pct_per_year', 'slope_data_pct_per_year', 'slope_data_lo_pct_per_year', 'slope_data_hi_pct_per_year',
    'prior_share', 'slope_data_pct_per_100_cycles', 'slope_data_lo_pct_per_100_cycles',
    'slope_data_hi_pct_per_100_cycles', 'equivalent_full_cycles', 'soc_bias_pct', 'soc_bias_lo_pct',
    'soc_bias_hi_pct', 'bms_min_deter_pct', 'bms_max_deter_cell_no', 'n', 'n_charge', 'n_ocv', 'n_soc_bias', 'n_slope',
    'soh_ocv_reason', 'soh_charge_reason', 'soc_bias_reason', 'slope_verdict',
] %}
with

months as (
    select * from {{ source('stitched', 'soh_month') }}
    where {{ devices_in_scope() }}
),

gated_month as (
    select * from {{ ref('int_gated_month') }}
)

select
    {%- for name in figures %}
    case when gated_month.gated_by is null then months.{{ name }} end as {{ name }},
    {%- endfor %}
    case when gated_month.gated_by is null then months.method else 'none' end as method,
    months.capacity_nominal_ah,
    months.capacity_source,
    months.curve_version,
    months.curve_origin,
    months.pack_epoch,
    gated_month.gated_by,
    months.device_no,
    months.measured_month
from months
left join gated_month
    on months.device_no = gated_month.device_no and months.measured_month = gated_month.measured_month
