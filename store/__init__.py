"""What the service remembers: settings, tables, queries, job states, leases, outbox and blobs."""
