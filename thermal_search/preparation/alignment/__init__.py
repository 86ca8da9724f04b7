"""Which part of an RGB image shows the same scene as its thermal image: known, or estimated."""
