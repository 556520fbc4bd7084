"""Models in use: routing, the gateway everybody calls, and the engines behind it."""
