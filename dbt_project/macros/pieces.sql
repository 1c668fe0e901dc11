{# First and last known value of a column in a group, in time order. #}
{% macro first_of(column, at='recorded_at') -%}
    min_by({{ column }}, {{ at }}) filter (where {{ column }} is not null)
{%- endmacro %}

{% macro last_of(column, at='recorded_at') -%}
    max_by({{ column }}, {{ at }}) filter (where {{ column }} is not null)
{%- endmacro %}

{# A fragment without current readings in which the SoC of a standing car rose: a charge that nobody metered. #}
{% macro is_unmetered_charge() -%}
    coalesce(
        state in ('AWAKE', 'IDLE') and current_max_a is null
        and step_last_pct - soc_first_pct >= {{ var('inferred_min_soc_pct') }},
        false
    )
{%- endmacro %}
