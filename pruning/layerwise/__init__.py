"""What each layer of a network is given, layer by layer."""
