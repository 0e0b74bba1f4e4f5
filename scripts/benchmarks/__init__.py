"""scripts/bench: knnkit against its peers, one run, one table. Part of the clone, never of an installed package."""
