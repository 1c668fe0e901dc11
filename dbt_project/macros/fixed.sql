{#
    A value as a fixed-point number with nine decimals, to be summed: a sum of floating-point numbers depends on the
    order of its rows, which threads and earlier runs decide; a sum of these does not. Nine decimals of a kilometre are
    a micrometre.
#}
{% macro fixed(expression) -%}
    cast({{ expression }} as decimal(28, 9))
{%- endmacro %}

{#
    A sum in fixed point as a floating-point number, NULL over no rows; `where` is the condition of the rows to count.
#}
{% macro fixed_sum(expression, where=none) -%}
    cast(sum({{ fixed(expression) }}){% if where %} filter (where {{ where }}){% endif %} as double)
{%- endmacro %}
