{# Engine: seconds from one timestamp to a later one, as a floating-point number. #}
{% macro seconds_between(earlier, later) -%}
    {{ adapter.dispatch('seconds_between')(earlier, later) }}
{%- endmacro %}

{% macro duckdb__seconds_between(earlier, later) -%}
    (epoch_us({{ later }}) - epoch_us({{ earlier }})) / 1000000e0
{%- endmacro %}

{# Engine: KST day of a KST timestamp. #}
{% macro kst_day(at) -%}
    {{ adapter.dispatch('kst_day')(at) }}
{%- endmacro %}

{% macro duckdb__kst_day(at) -%}
    cast({{ at }} as date)
{%- endmacro %}

{# Engine: month of a KST day as YYYY-MM. #}
{% macro month_of(day) -%}
    {{ adapter.dispatch('month_of')(day) }}
{%- endmacro %}

{% macro duckdb__month_of(day) -%}
    strftime({{ day }}, '%Y-%m')
{%- endmacro %}

{# Engine: the day a number of days after another. #}
{% macro add_days(day, days) -%}
    {{ adapter.dispatch('add_days')(day, days) }}
{%- endmacro %}

{% macro duckdb__add_days(day, days) -%}
    cast({{ day }} + {{ days }} as date)
{%- endmacro %}

{#
    Engine: one row per day from `first_day` to `last_day` of every row of a relation, as a cross join to it.
    The day is the column `on_date` of `days`.
#}
{% macro cross_join_days(first_day, last_day) -%}
    {{ adapter.dispatch('cross_join_days')(first_day, last_day) }}
{%- endmacro %}

{% macro duckdb__cross_join_days(first_day, last_day) -%}
    cross join lateral (
        select unnest(generate_series({{ first_day }}, {{ last_day }}, interval 1 day))::date as on_date
    ) as days
{%- endmacro %}

{# Engine: first 16 hex digits of a hash of a text that is the same on every engine. #}
{% macro short_hash(text) -%}
    {{ adapter.dispatch('short_hash')(text) }}
{%- endmacro %}

{% macro duckdb__short_hash(text) -%}
    substr(md5({{ text }}), 1, 16)
{%- endmacro %}

{# Engine: number of the slot of so many seconds that a timestamp lies in. #}
{% macro time_slot(at, seconds) -%}
    {{ adapter.dispatch('time_slot')(at, seconds) }}
{%- endmacro %}

{% macro duckdb__time_slot(at, seconds) -%}
    epoch_us({{ at }}) // {{ seconds * 1000000 }}
{%- endmacro %}

{# Engine: a timestamp some seconds (a floating-point number, negative too) later, to the microsecond. #}
{% macro add_seconds(at, seconds) -%}
    {{ adapter.dispatch('add_seconds')(at, seconds) }}
{%- endmacro %}

{% macro duckdb__add_seconds(at, seconds) -%}
    date_trunc('second', {{ at }} + to_microseconds(cast(round(({{ seconds }}) * 1000000) as bigint)))
{%- endmacro %}
