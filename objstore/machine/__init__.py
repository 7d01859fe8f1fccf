"""Floor 2, the machine: the operating system behind the `Filesystem` contract, and one in memory."""
