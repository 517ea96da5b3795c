"""Small data sets of real pictures that a fresh machine can make from Debian packages."""
