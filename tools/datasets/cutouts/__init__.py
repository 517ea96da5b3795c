"""A data set of cut-outs pasted on photographs, with exact boxes and masks."""
