"""From the network to data/: downloads, archives, and what is there already."""
