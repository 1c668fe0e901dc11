{# First and last known value of a column in a group, in time order. #}
{% macro first_of(column, at='recorded_at') -%}
    min_by({{ column }}, {{ at }}) filter (where {{ column }} is not null)
{%- endmacro %}

{% macro last_of(column, at='recorded_at') -%}
    max_by({{ column }}, {{ at }}) filter (where {{ column }} is not null)
{%- endmacro %}

{# Sum of floating-point numbers that does not depend on the order of its rows; NULL where nothing is summed. #}
{% macro sum_of(expression) -%}
    cast(sum({{ fixed(expression) }}) as double)
{%- endmacro %}
