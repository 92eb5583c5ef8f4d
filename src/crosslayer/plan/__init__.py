"""Where and when: node order and places in memory."""
