{# A channel as it was delivered, NULL where it is not supported by the car: vars `zero_channels`
   and `flag_channels`, device_setting. #}
{% macro supported(column) -%}
    case when not coalesce(lacks_{{ column }}, false) then {{ column }} end
{%- endmacro %}

{# A temperature of a single channel, without the listed sentinels (DOMAIN 3): they say "no sensor". #}
{% macro temperature(column) -%}
    case when {{ column }} not in (-40, 215, 471) and not coalesce(lacks_{{ column }}, false) then {{ column }} end
{%- endmacro %}

{# SoC 0 or above 100 on a pack whose cells are alive is no value (DOMAIN 3); how high alive cells stand goes by
   chemistry. Without cells, only above 100 is. #}
{% macro is_soc_no_value(column) -%}
    coalesce(
        {{ column }} > 100
        or (
            {{ column }} = 0
            and cell_mean_mv > case when is_lfp then {{ var('soc_alive_lfp_mv') }} else {{ var('soc_alive_cell_mv') }} end
        ),
        false
    )
{%- endmacro %}
