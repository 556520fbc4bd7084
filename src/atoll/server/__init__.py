"""The centre: the management API, the controllers, and `atoll up`."""
