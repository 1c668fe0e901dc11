{# First and last known value of a column in a group, in time order. #}
{% macro first_of(column, at='recorded_at') -%}
    min_by({{ column }}, {{ at }}) filter (where {{ column }} is not null)
{%- endmacro %}

{% macro last_of(column, at='recorded_at') -%}
    max_by({{ column }}, {{ at }}) filter (where {{ column }} is not null)
{%- endmacro %}
