"""What an attacker can do to a network's inputs."""
