"""The graph of nuclei: who is beside whom, what an organoid is like, and which phenotype it has."""
