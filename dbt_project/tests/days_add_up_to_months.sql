-- Months whose days do not add up to them, to a millimetre: kilometres were lost or counted twice.
with

daily as (
    select
        sum(distance_km) as distance_km,
        device_no,
        measured_month
    from {{ ref('fct_mileage_daily') }}
    group by device_no, measured_month
)

select
    monthly.distance_km as month_km,
    daily.distance_km as days_km,
    monthly.device_no,
    monthly.measured_month
from {{ ref('fct_mileage_monthly') }} as monthly
left join daily on monthly.device_no = daily.device_no and monthly.measured_month = daily.measured_month
where
    abs(coalesce(monthly.distance_km, 0) - coalesce(daily.distance_km, 0)) > 1e-6
    or (monthly.distance_km is null) <> (daily.distance_km is null)
