"""What studies predict of the ledger's claims, and how their records decide it."""
