"""Training of the survivors. The module of a kind has `recover(module, data, loss, masks, ...)`."""
