"""Design → scores."""
