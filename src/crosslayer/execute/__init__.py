"""Running a graph: one judge, and executors that give the same bytes."""
