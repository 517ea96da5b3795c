"""Files, messages, differences between detectron2's versions. Imports nothing of d2_isonet."""
