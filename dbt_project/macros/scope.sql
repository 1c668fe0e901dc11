{#
    The only place where a partition becomes a `where`. A run writes what it was asked for into three tables before
    dbt starts: ops.scope_partition (device_no, measured_month), ops.scope_device (device_no) and ops.scope_file
    (kind, path).
    A partition in scope is replaced also when it has become empty; nothing outside the scope is touched.
#}
{% macro partitions_in_scope() -%}
    (device_no, measured_month) in (select device_no, measured_month from ops.scope_partition)
{%- endmacro %}

{% macro devices_in_scope() -%}
    device_no in (select device_no from ops.scope_device)
{%- endmacro %}

{#
    The raw rows of the partitions in scope. The files come as an explicit list: a glob would read the footer of every
    file in the lake. The list always holds one typed file without rows, because an empty list is an error; it comes
    last, because DuckDB takes the size of the first file for that of all, and would build its joins on the rows.
#}
{% macro raw_rows(kind) -%}
    {%- if execute -%}
        {%- set found = run_query("select path from ops.scope_file where kind = '" ~ kind ~ "' order by path desc") -%}
        {{ adapter.dispatch('parquet_rows')(found.columns[0].values()) }}
    {%- else -%}
        (select 1) as raw_rows
    {%- endif -%}
{%- endmacro %}

{#
    Incremental strategy `replace_scope`: the rows of everything in scope go, the new ones come, in one transaction.
    A model whose unique_key has measured_month is replaced by partition, any other by device.
#}
{% macro get_incremental_replace_scope_sql(arg_dict) -%}
    {%- set target = arg_dict['target_relation'] -%}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    {%- set keys = arg_dict['unique_key'] or [] -%}
    {%- if config.get('contract').enforced -%}
        {%- do assert_columns_equivalent('select * from ' ~ arg_dict['temp_relation']) -%}
    {%- endif -%}
    delete from {{ target }}
    where {{ partitions_in_scope() if 'measured_month' in keys else devices_in_scope() }};

    insert into {{ target }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }}
{%- endmacro %}

{#
    dbt compares a contract with the query before it runs it: every query would be bound twice. Where the rows come by a
    temporary table, that table is compared instead, before they enter: see above.
#}
{% macro default__get_assert_columns_equivalent(sql) -%}
    {%- if not is_incremental() -%}
        {{ return(assert_columns_equivalent(sql)) }}
    {%- endif -%}
{%- endmacro %}

{# True for rows of months that no structure check keeps out: a gated month is a silence to its neighbours. #}
{% macro outside_gates() -%}
    (device_no, measured_month) not in (select device_no, measured_month from {{ source('ops', 'partition_gate') }})
{%- endmacro %}
