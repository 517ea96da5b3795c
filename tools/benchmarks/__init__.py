"""Side-by-side measurements of d2_isonet and what users would pick instead."""
