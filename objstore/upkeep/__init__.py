"""Floor 4, upkeep: packing and checking a store."""
