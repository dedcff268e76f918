"""Durable jobs in a SQL table: states, leases with fencing tokens, events, outbox, idempotency, blobs."""
