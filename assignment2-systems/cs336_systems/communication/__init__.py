"""How fast a group of processes communicates: collectives over sizes and numbers of processes."""
