"""What arrives: archives, formats, columns, deliveries and their rows. Knows nothing of Dagster, dbt or the warehouse."""
