"""Side-by-side measurements: each puts mlplatform beside what one would use instead, in one run."""
