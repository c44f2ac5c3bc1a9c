"""Many architectures in one compiled program: a network is data, a size class is its room."""
