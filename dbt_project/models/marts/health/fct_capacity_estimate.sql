{{ config(unique_key=['device_no'], tags=['health']) }}
-- One row per capacity estimate: a charging session (method charge, an echo of the BMS's own capacity) or a pair of
-- rests (method ocv, independent of it).
with

estimates as (
    select * from {{ source('stitched', 'capacity_estimate') }}
    where {{ devices_in_scope() }}
)

select
    {{ short_hash("concat_ws('|', device_no, method, cast(from_at as string), cast(to_at as string))") }}
        as estimate_id,
    method,
    case when method = 'charge' then reference end as session_id,
    case when method = 'ocv' then reference end as curve_version,
    estimated_at,
    from_at,
    to_at,
    capacity_ah,
    capacity_sd_ah,
    random_sd_ah,
    charge_ah,
    charge_source,
    soc_from_pct,
    soc_to_pct,
    soc_delta_pct,
    temp_mean_c,
    epoch as pack_epoch,
    device_no,
    measured_month
from estimates
