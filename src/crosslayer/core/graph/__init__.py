"""The network as data: `graph` holds it, `ops` gives it meaning, `build` writes it, `channels` cuts it."""
