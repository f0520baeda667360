"""What a method must know of a whole tensor: thresholds, sums, ranks, masks, spectra."""
