"""Jobs: what is to be run, the states that it goes through, and which worker it fits."""
