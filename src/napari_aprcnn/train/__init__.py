"""Training: data, augmentation, losses, fitting."""
