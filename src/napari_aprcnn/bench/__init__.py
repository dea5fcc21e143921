"""Measured figures: ``python -m napari_aprcnn.bench`` runs every table and writes it as text and JSON."""
