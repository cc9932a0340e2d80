"""What the rows of the benchmark share: the machine, the peers, running programs, and the report."""
