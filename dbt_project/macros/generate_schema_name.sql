{# A model lives in the schema its folder names; no prefix of the target, so that the names are the same everywhere. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name if custom_schema_name else target.schema }}
{%- endmacro %}
