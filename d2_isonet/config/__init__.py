"""Config keys, their legal values, loading of yaml and KEY VALUE pairs. May import utils."""
