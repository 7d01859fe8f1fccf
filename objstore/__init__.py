"""objstore: an embedded object database whose storage is a directory one can look into."""
