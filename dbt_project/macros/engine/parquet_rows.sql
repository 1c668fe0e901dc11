{# Engine: a relation over an explicit list of Parquet files of one schema. #}
{% macro duckdb__parquet_rows(paths) -%}
    read_parquet([
        {%- for path in paths %}'{{ path | replace("'", "''") }}'{{ ", " if not loop.last }}{% endfor -%}
    ], hive_partitioning = false)
{%- endmacro %}
