"""What is done for the survivors. The module of a kind has `recover(setting, options) -> notes`.

`trainer` is the loop over epochs and steps; it knows neither jobs nor masks, which come in as a
`Constraint`, and soft pruning (`proximal`) is the same loop under another one.
"""
