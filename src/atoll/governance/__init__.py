"""Projects, keys, access, the ledger of usage."""
