"""What things cost: devices, their cycles and their energy, as tables and formulas."""
