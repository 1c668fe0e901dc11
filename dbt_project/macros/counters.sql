{#
    Least squares of counted charge y (Ah) on SoC s (share) and awake hours t from sums over wakings:
    y = level + capacity x s + rate x t. The columns are <prefix>_n, _t, _s, _y, _tt, _ts, _ty, _ss, _sy, _yy.
#}
{% macro centred_sum(prefix, left, right) -%}
    ({{ prefix }}_{{ left }}{{ right }} - {{ prefix }}_{{ left }} * {{ prefix }}_{{ right }} / nullif({{ prefix }}_n, 0))
{%- endmacro %}

{#
    The most that a lifetime counter of a car can rise by in so many hours and kilometres, Ah: what the pack holds, and
    what goes through it while the car drives and is charged in turns, or while it stands and drives so many kilometres.
    Without kilometres the hours alone bound it. Reads the columns capacity_ah and volts.
#}
{% macro counter_rise_max_ah(hours, km='cast(null as double)') -%}
    (
        {{ var('counter_rise_packs') }} * capacity_ah
        + coalesce(
            least(
                {{ var('counter_driven_c') }} * capacity_ah * ({{ hours }}),
                {{ var('counter_parked_c') }} * capacity_ah * ({{ hours }})
                + {{ var('counter_driven_kwh_per_km') }} * 1000 / volts * (case when {{ km }} >= 0 then {{ km }} end)
            ),
            {{ var('counter_driven_c') }} * capacity_ah * ({{ hours }})
        )
    )
{%- endmacro %}
