"""Training runs: data order, loop, validation, records, checkpoints, devices, tuning."""
