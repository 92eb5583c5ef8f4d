"""Reference networks: functions from input shape and number of classes to a float graph with fresh weights."""
