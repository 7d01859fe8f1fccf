"""Floor 5, objects: persistent objects over any `contracts.Store`."""
