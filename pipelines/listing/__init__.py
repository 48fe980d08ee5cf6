"""The listing: every image of a run, listed once by the launcher, as a table that everything else reads."""
