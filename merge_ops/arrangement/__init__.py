"""Which tensor of which model goes where: slices, modules, groups."""
