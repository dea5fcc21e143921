"""Architectures as data, and the zoo: named weights with their card."""
