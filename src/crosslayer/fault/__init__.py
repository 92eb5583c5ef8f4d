"""What faults do to a network, and what firmware does against them."""
