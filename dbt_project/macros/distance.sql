{# Great-circle distance in km of two positions in degrees (haversine, mean Earth radius 6371.0088 km, IUGG). #}
{% macro haversine_km(lat_1, lng_1, lat_2, lng_2) -%}
    2 * 6371.0088e0 * asin(least(1e0, sqrt(
        power(sin(radians({{ lat_2 }} - {{ lat_1 }}) / 2), 2)
        + cos(radians({{ lat_1 }})) * cos(radians({{ lat_2 }}))
        * power(sin(radians({{ lng_2 }} - {{ lng_1 }}) / 2), 2)
    )))
{%- endmacro %}

{# Window of a partition's rows in time order; the only order that local models use. #}
{% macro in_time_order(order_by='recorded_at') -%}
    partition by device_no, measured_month order by {{ order_by }}
{%- endmacro %}
