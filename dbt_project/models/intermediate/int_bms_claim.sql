{{ config(unique_key=['device_no', 'measured_month'], tags=['local']) }}
-- One row per device and month with BMS rows: what the car itself says about its pack, at the end of the month. Local.
select
    {{ last_of('soh_bms_pct') }} as soh_bms_pct,
    {{ last_of('bms_min_deter_pct') }} as bms_min_deter_pct,
    cast({{ last_of('bms_max_deter_cell_no') }} as bigint) as bms_max_deter_cell_no,
    device_no,
    measured_month
from {{ ref('stg_bms') }}
group by device_no, measured_month
