{# Band of a ratio of the odometer to a witness: green, amber or red; NULL where the ratio cannot be computed. #}
{% macro ratio_band(ratio) -%}
    case
        when {{ ratio }} is null then null
        when {{ ratio }} between {{ var('ratio_green_min') }} and {{ var('ratio_green_max') }} then 'green'
        when {{ ratio }} between {{ var('ratio_amber_min') }} and {{ var('ratio_amber_max') }} then 'amber'
        else 'red'
    end
{%- endmacro %}
