"""What a store has on record of its models: names, lineage, champions' history, withdrawals,
damage, cards.
"""
