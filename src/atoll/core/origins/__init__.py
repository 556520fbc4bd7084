"""Where files come from outside the platform: packages of an index, repositories of a hub, folders of a node."""
