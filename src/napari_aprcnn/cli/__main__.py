"""``python -m napari_aprcnn.cli`` is ``aprcnn``."""

from napari_aprcnn.cli import main

if __name__ == "__main__":
    main()
