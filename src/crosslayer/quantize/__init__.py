"""From float32 to integer codes."""
