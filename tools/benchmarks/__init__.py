"""Measurements of d2_isonet side by side with the usual alternatives."""
