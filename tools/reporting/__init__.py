"""What tools/report.py shows of training runs: read from OUTPUT_DIR, measured, drawn, written."""
