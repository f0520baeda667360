"""Where things live: the artifact store, model sources, and the machines to compute on."""
