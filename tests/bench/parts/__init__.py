"""What several benches share: load, processes, rivals in environments of their own."""
