-- Months whose distance lies outside its own interval, or is negative.
select
    distance_lo_km,
    distance_km,
    distance_hi_km,
    device_no,
    measured_month
from {{ ref('fct_mileage_monthly') }}
where distance_km < 0 or distance_km < distance_lo_km or distance_km > distance_hi_km
