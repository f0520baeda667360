"""Steps that make other structures: mixtures, windows, deeper models, other vocabularies."""
