{#
    Half a two-sided 90 % interval in standard errors, of a mean whose error is estimated with this many degrees of
    freedom: Student's t by its expansion about the normal quantile (Abramowitz and Stegun 1972, 26.7.5), within 0.2 %
    from four degrees of freedom on.
#}
{% macro student_t(freedom) -%}
    {%- set z = var('interval_z') %}
    ({{ z }} + {{ (z ** 3 + z) / 4 }} / ({{ freedom }})
    + {{ (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96 }} / power({{ freedom }}, 2)
    + {{ (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384 }} / power({{ freedom }}, 3))
{%- endmacro %}
