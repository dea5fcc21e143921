"""A Segment dock's model with a ball network for volumes behind it."""

from napari_fakes import card
from segment_tools import in_place, settle

from napari_aprcnn._napari.backend import Backend, Machine
from napari_aprcnn._napari.segment_model import SegmentModel
from napari_aprcnn.segment.pipeline import segment
from volume_fakes import BallNetwork, volume_card

PLANES, VOLUMES = card("fastercellpose-v3"), volume_card("apr-tiny-3d")


def machine(device, threads):
    return Machine((PLANES, card("fastcellpose"), VOLUMES), "CPU, 2 threads", "no GPU found: there is none here")


class Watched:
    """A backend that runs the ball network, and remembers what it was asked."""

    def __init__(self, **changes):
        self.network = BallNetwork()
        self.errors, self.prrs, self.relabels = [], [], 0
        real = Backend()

        def run(image, *, config, **rest):
            return segment(image, config=config, **rest, model=self.network)

        def reduction(image, mapping, *, relative_error, **rest):
            self.errors.append(relative_error)
            return real.reduction(image, mapping, relative_error=relative_error, **rest)

        def estimate(shape, dtype, config, diameter, prr):
            self.prrs.append(prr)
            return "about 1 s"

        def relabel(*args, **kwargs):
            self.relabels += 1
            return real.relabel(*args, **kwargs)

        values = {"segment": run, "reduction": reduction, "estimate": estimate, "relabel": relabel}
        self.backend = Backend(**{**values, "machine": machine, "card": lambda name: None, **changes})


def open_model(viewer, watched, *, launch=in_place):
    model = SegmentModel(viewer, launch=launch, backend=watched.backend)
    model.told = []
    model.notified.connect(lambda severity, sentence, error: model.told.append((severity, sentence, error)))
    model.set("threads", value=1)
    settle(model)
    return model


def show_all(model):
    model.set_option(show_levels=True, show_reconstruction=True, show_particles=True)
