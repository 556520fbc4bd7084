"""The node's side: it tells the centre what this machine has and does, and does what the centre wants."""
