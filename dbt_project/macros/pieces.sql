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

{# Whether a pair of charging (V2L) messages far apart is one steady current, and integrated (DOMAIN 5). #}
{% macro is_bridged(interval_s, state, state_before, current_a, current_before_a) -%}
    coalesce(
        {{ interval_s }} <= {{ var('bridge_max_s') }}
        and {{ state }} in ('CHARGE', 'V2L') and {{ state_before }} = {{ state }}
        and abs({{ current_a }} - {{ current_before_a }})
        <= {{ var('bridge_current_share') }} * greatest(abs({{ current_a }}), abs({{ current_before_a }})),
        false
    )
{%- endmacro %}
