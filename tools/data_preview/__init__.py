"""What tools/visualize_data.py shows of a data set: as annotated, or as the network is fed."""
