-- The platform's own tables in the warehouse: what was delivered, what was decided, what was checked, what is up to date.
-- Everything here can be rebuilt from the landing; nothing here is published as it stands except by `publish`.
create schema if not exists ops;
create schema if not exists stitched;
create schema if not exists staging;
create schema if not exists intermediate;
create schema if not exists marts;
create schema if not exists evidence;

-- One row per path in the landing; size and mtime spare hashing a file that has not changed.
create table if not exists ops.landing_file (
    path varchar primary key, size bigint, mtime_ns bigint, sha256 varchar, is_present boolean,
);
-- The name a content goes by: of its copies that are there the first by file name, then by folder, whichever came first.
create or replace view ops.first_path as
select
    sha256,
    min_by(path, (case when is_present then '0' else '1' end) || parse_filename(path) || chr(1) || path) as path,
from ops.landing_file group by sha256;
-- One row per content: a file that arrives twice is parsed once. `read_as` is the name that a plain file was read under.
create table if not exists ops.delivered_file (
    sha256 varchar primary key, parser varchar, read_as varchar, status varchar, reason varchar, parsed_at timestamp,
);
create table if not exists ops.delivered_member (
    source_file varchar primary key, sha256 varchar, member varchar, kind varchar, status varchar, reason varchar,
    rows_read bigint, rows_rejected bigint, rejected_unattributed bigint, unknown_columns varchar[], layout_id varchar,
    delivered_at timestamp, logical_name varchar, encoding varchar, bytes_unpacked bigint,
);
create table if not exists ops.delivered_slice (
    source_file varchar, sha256 varchar, kind varchar, device_no varchar, measured_month varchar, path varchar,
    row_count bigint, first_at timestamp, last_at timestamp, layout_id varchar, is_sorted_unique boolean,
    logical_name varchar, delivered_at timestamp, rows_rejected bigint,
);
create table if not exists ops.vehicle_master (
    device_no varchar, car_type varchar, source_file varchar, sha256 varchar, delivered_at timestamp,
);

create table if not exists ops.raw_partition (
    kind varchar, device_no varchar, measured_month varchar, row_count bigint, duplicate_count bigint,
    superseded_count bigint, conflicting_count bigint, rejected_count bigint, first_at timestamp, last_at timestamp,
    path varchar, primary key (kind, device_no, measured_month),
);
-- What became of the rows of each delivered file in each partition.
create table if not exists ops.raw_source (
    kind varchar, device_no varchar, measured_month varchar, source_file varchar,
    kept bigint, duplicates bigint, superseded bigint,
);
create table if not exists ops.decision_evidence (
    device_no varchar, measured_month varchar, layout_id varchar, evidence varchar,
);
create table if not exists ops.device_decision (
    device_no varchar, decision varchar, layout_id varchar, value varchar, confidence double, n bigint,
    evidence varchar, is_overridden boolean, measured_month varchar,
);
alter table ops.device_decision add column if not exists measured_month varchar;
create table if not exists ops.device_setting (
    device_no varchar primary key, car_type varchar, pack_type varchar, chemistry varchar, cell_count integer,
    temp_sensor_count integer, temp_sensor_map varchar, insulation_cap_kohm double, capacity_nominal_ah double,
    capacity_source varchar, content varchar, unsupported_channels varchar,
);
alter table ops.device_setting add column if not exists unsupported_channels varchar;
create table if not exists ops.layout_setting (
    device_no varchar, layout_id varchar, current_sign integer, voltage_scale double, soc_scale double,
    primary key (device_no, layout_id),
);
alter table ops.layout_setting add column if not exists soc_scale double;
-- Months in which an export's current has another sign than in all others, NULL where it could not be told.
create table if not exists ops.month_setting (
    device_no varchar, layout_id varchar, measured_month varchar, current_sign integer,
    primary key (device_no, layout_id, measured_month),
);
create table if not exists ops.partition_gate (device_no varchar, measured_month varchar, check_name varchar);
create table if not exists ops.partition_quality (
    measured_month varchar, device_no varchar, table_name varchar, check_name varchar, severity varchar,
    is_passed boolean, rows_checked bigint, rows_failed bigint, example varchar,
);
-- Devices whose marts failed their checks: they keep their last good published figures.
create table if not exists ops.device_hold (device_no varchar, check_name varchar, reason varchar);

-- Sites: which session was where, the sites, and our fleet's use of them; see assets/sites.py.
create table if not exists stitched.session_site (session_id varchar primary key, site_id varchar);
create table if not exists stitched.site (
    site_id varchar primary key, lat double, lng double, first_session_at timestamp, last_session_at timestamp,
    device_count bigint, session_count bigint, dc_session_count bigint, energy_kwh double, charging_min double,
    connected_min double, power_max_kw double,
);
create table if not exists stitched.site_usage (
    site_id varchar, weekday bigint, hour bigint, sessions bigint, energy_kwh double, charging_min double,
    connected_min double,
);
-- Released versions as they stand in the files below BAAS_HOME/released; filled when they are published.
create table if not exists ops.released_version (
    version_id varchar primary key, kind varchar, chemistry varchar, pack_type varchar, is_active boolean,
    content varchar, made_from varchar, quality varchar,
);

-- What made each unit of state; see state.py.
create table if not exists ops.unit_state (
    unit varchar, key varchar, fingerprint varchar, status varchar, reason varchar, updated_at timestamp,
    primary key (unit, key),
);

-- What the run at work replaces; see macros/scope.sql.
create table if not exists ops.scope_partition (device_no varchar, measured_month varchar);
create table if not exists ops.scope_device (device_no varchar);
create table if not exists ops.scope_file (kind varchar, path varchar);
