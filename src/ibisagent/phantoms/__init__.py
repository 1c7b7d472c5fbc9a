"""Procedural images with exact named masks: a gym, not an atlas.

What they are: drawings of random layouts that carry the names, rough looks and simple physics (window, blur,
noise, bias field, speckle …) of medical images, unlimited in number, where every mask is exact by construction.
They are for training and testing the loop of looking, clicking and stopping, and for statistical tests.

What they are not: anatomy, or a source of medical truth. Proportions, neighbourhoods and diseases are made up; a
figure measured on them says nothing about real patients, and nothing here is calibrated to a scanner.

>>> from ibisagent.phantoms import generate
>>> sorted(generate("breast_mri", seed=1).masks)
['breast lesion']

Shapes without names, for click training, are in :mod:`ibisagent.phantoms.shapes`.
"""

from ibisagent.phantoms.catalog import KINDS, MIN_PIXELS, MODALITIES, generate
from ibisagent.phantoms.contact import contact_sheet
from ibisagent.phantoms.phantom import Phantom
from ibisagent.phantoms.volume import VOLUME_KINDS, PhantomVolume, generate_volume

__all__ = [
    "KINDS",
    "MIN_PIXELS",
    "MODALITIES",
    "VOLUME_KINDS",
    "Phantom",
    "PhantomVolume",
    "contact_sheet",
    "generate",
    "generate_volume",
]
