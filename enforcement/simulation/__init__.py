"""A seeded simulation of books, ledger, network, disks and engines, over the production rules.

The same seed gives the same run, event for event (I12). What is simulated is everything around
`enforcement.rules`: time, loss, crashes. The rules themselves are the ones that run for real.
"""
