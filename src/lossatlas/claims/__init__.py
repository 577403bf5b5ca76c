"""The ledger of claims: what settles each one, a computation of :mod:`lossatlas.theory` or a study's records."""
