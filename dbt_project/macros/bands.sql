{# Lower edge of the band of the given width that a value lies in. #}
{% macro band_of(value, width) -%}
    floor(({{ value }}) / {{ width }}e0) * {{ width }}e0
{%- endmacro %}

{# Lower edge of the SoC band; 100 % belongs to the band below it. #}
{% macro soc_band_of(value, width) -%}
    case when {{ value }} >= 100 then 100e0 - {{ width }}e0 else {{ band_of(value, width) }} end
{%- endmacro %}

{# Lower edge of the band of a current rate (1/h, never negative); 0 where nothing flows. #}
{% macro rate_band_of(rate) -%}
    case
        {%- for edge in var('rate_bands_c') | reverse %}
        when {{ rate }} >= {{ edge }}e0 then {{ edge }}e0
        {%- endfor %}
        when {{ rate }} is not null then 0e0
    end
{%- endmacro %}

{# Upper edge of the band of a current rate, NULL for the open one. #}
{% macro rate_band_end(band_from) -%}
    case {{ band_from }}
        {%- set edges = [0] + var('rate_bands_c') %}
        {%- for edge in edges[:-1] %}
        when {{ edge }}e0 then {{ edges[loop.index] }}e0
        {%- endfor %}
    end
{%- endmacro %}

{# A band in words: `20-25`, `2-` without an upper edge, `unknown` without a lower one. #}
{% macro band_name(band_from, band_to) -%}
    case
        when {{ band_from }} is null then 'unknown'
        else concat({{ short_number(band_from) }}, '-', coalesce({{ short_number(band_to) }}, ''))
    end
{%- endmacro %}

{# A number as text without a useless `.0`. #}
{% macro short_number(value) -%}
    case
        when {{ value }} = floor({{ value }}) then cast(cast({{ value }} as integer) as string)
        else cast({{ value }} as string)
    end
{%- endmacro %}
