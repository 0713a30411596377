"""The HTTP interface: thin routes over `store`. Never imports torch, the broker or the worker."""
