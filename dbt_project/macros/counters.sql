{#
    Least squares of counted charge y (Ah) on SoC s (share) and awake hours t from sums over wakings:
    y = level + capacity x s + rate x t. The columns are <prefix>_n, _t, _s, _y, _tt, _ts, _ty, _ss, _sy, _yy.
#}
{% macro centred_sum(prefix, left, right) -%}
    ({{ prefix }}_{{ left }}{{ right }} - {{ prefix }}_{{ left }} * {{ prefix }}_{{ right }} / nullif({{ prefix }}_n, 0))
{%- endmacro %}
