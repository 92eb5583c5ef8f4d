"""The nouns: graph, number code, target, plan, design, stage, bench, score. NumPy only."""
