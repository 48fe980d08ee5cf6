"""How fast the parts are, against what, in one run."""
