"""Untrusted files in, results out: images, labels, outlines, tables, samples."""
