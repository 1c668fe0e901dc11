{# Engine: window functions over the values that are known; the caller adds `over (...)`. #}
{% macro last_known(expression) -%}
    {{ adapter.dispatch('last_known')(expression) }}
{%- endmacro %}

{% macro duckdb__last_known(expression) -%}
    last_value({{ expression }} ignore nulls)
{%- endmacro %}

{% macro lag_known(expression) -%}
    {{ adapter.dispatch('lag_known')(expression) }}
{%- endmacro %}

{% macro duckdb__lag_known(expression) -%}
    lag({{ expression }} ignore nulls)
{%- endmacro %}

{% macro lead_known(expression) -%}
    {{ adapter.dispatch('lead_known')(expression) }}
{%- endmacro %}

{% macro duckdb__lead_known(expression) -%}
    lead({{ expression }} ignore nulls)
{%- endmacro %}
