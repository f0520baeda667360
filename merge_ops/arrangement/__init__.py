"""Which tensor of which model goes where: slices, modules, groups."""

from merge_ops.arrangement.arrangement import arrange, donor_of
from merge_ops.arrangement.groups import Arrangement, Group, Place

__all__ = ["Arrangement", "Group", "Place", "arrange", "donor_of"]
