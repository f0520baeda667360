"""What the answers of many models to one suite show together: fewer items, routing, retention,
soups.
"""
