"""The kernel: resources, store, reconcile, leases, blobs. It knows no AI."""
