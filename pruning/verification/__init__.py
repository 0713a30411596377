"""The second half of a pruning: what was written is read again, and nothing else is believed."""
