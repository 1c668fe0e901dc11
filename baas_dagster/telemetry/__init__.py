"""What arrives: archives, formats, columns, deliveries and their rows. Knows nothing of Dagster or the warehouse."""
