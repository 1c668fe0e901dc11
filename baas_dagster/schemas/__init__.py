"""What a row must look like: pandera schemas of the raw partitions and of the marts. No Dagster, no I/O."""
