"""The napari plugin: reader, writer, sample data and the Segment dock. The only room with napari, Qt and magicgui."""
