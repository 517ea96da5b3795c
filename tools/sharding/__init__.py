"""The parts of make_shards.py."""
