{#
    A value as a fixed-point number with nine decimals, to be summed: a sum of floating-point numbers depends on the
    order of its rows, which threads and earlier runs decide; a sum of these does not. Nine decimals of a kilometre are
    a micrometre.
#}
{% macro fixed(expression) -%}
    cast({{ expression }} as decimal(28, 9))
{%- endmacro %}
