"""What can go wrong around mncompress, as scenarios: each makes cases from a seed, runs them, and tells which were not met well.

`tests/test_hardening.py` runs a sample of each, `benchmarks/hardening.py` the full counts.

    server      commands in forked processes: killed, starved, watched
    kill        every command killed at random moments
    places      full disks, folders that cannot be written, two processes on one folder
    hostile     ONNX files that want more than arithmetic
    fuzz        mutated inputs of every command
    networks    random networks through a training step, compression and export
    growth      memory and time over neurons and rows
"""
