"""DICOM Segmentation objects (BINARY) by highdicom: coded, referring to the images that they were drawn on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent import __version__
from ibisagent.errors import InputError
from ibisagent.io.files import atomic_write, display_name
from ibisagent.io.terminology import Code, Concept, find_concept
from ibisagent.io.volume import Volume
from ibisagent.io.writers.dicom_source import (
    DicomSource,
    decimal,
    derived_uid,
    long_string,
    new_uid,
    quiet_pydicom,
    read_source,
)
from ibisagent.io.writers.label import SegmentLabel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_dicom_seg"]

NOT_FOUND = "not found: looked for in every slice, no voxel belongs to it"
"""What the description of an empty segment says."""

# highdicom asks what class its sources are only to tell single images from multi-frame files: here every frame is given
# to it as a single image under a stand-in UID, which its true reference replaces afterwards
_SINGLE_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def write_dicom_seg(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a mask as a DICOM Segmentation in the source's study and frame of reference.

    Its frames lie exactly on the source's (same size, orientation, position), refer to them one by one, and the object
    lists all instances of the series. Slices without foreground are left out, as is usual. An empty mask is written
    too, with every slice as a frame of zeros and "not found" in the segment's description, so that an absent target
    cannot be taken for one that nobody looked for. Like the source, the file names the patient.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        A DICOM volume.
    path
        File to write.
    label
        Its name is coded by :func:`ibisagent.io.terminology.find_concept` and kept as it is in the segment's label.

    Raises
    ------
    InputError
        If the volume is not from DICOM, its files cannot be read any more, or writing fails.
    ValueError
        If the mask is not ``bool`` of the grid's shape.
    """
    volume.grid.check_mask(mask)
    source = read_source(volume)
    with quiet_pydicom():
        try:
            seg = _segmentation(mask, volume, source, label)
        except Exception as error:  # highdicom checks what it copies, and its words may quote the patient's data
            raise InputError(
                f"{display_name(volume.source)}: no DICOM-SEG can be made for this series ({type(error).__name__}); "
                "choose another format, for example --format nifti"
            ) from error
    with quiet_pydicom(), atomic_write(path) as f:
        seg.save_as(f, enforce_file_format=True)


def _segmentation(mask: NDArray[np.bool_], volume: Volume, source: DicomSource, label: SegmentLabel) -> Any:
    import highdicom as hd

    stand_ins = [f"2.25.{k + 1}" for k in range(len(source.references))]
    seg = hd.seg.Segmentation(
        source_images=_single_images(source, volume, stand_ins),
        pixel_array=np.ascontiguousarray(mask.transpose(2, 1, 0)),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(label, find_concept(label.name, volume.body_part), bool(mask.any()))],
        series_instance_uid=new_uid(),
        series_number=1000 + source.header.SeriesNumber % 1000,
        sop_instance_uid=new_uid(),
        instance_number=1,
        manufacturer="ibisagent",
        manufacturer_model_name="ibisagent",
        software_versions=long_string(__version__),
        device_serial_number="none",
        content_label="SEGMENTATION",
        content_description=long_string(label.name),
        content_creator_name="ibisagent^",
        series_description=long_string(f"Segmentation: {label.name}"),
        omit_empty_frames=True,
    )
    _restore_references(seg, source, stand_ins)
    return seg


def _single_images(source: DicomSource, volume: Volume, stand_ins: list[str]) -> list[Any]:
    """The source's frames as highdicom wants to see images: patient and study, and where each lies."""
    from pydicom.dataset import Dataset

    images = []
    for position, stand_in in zip(source.positions, stand_ins, strict=True):
        ds = Dataset()
        ds.update(source.header)  # shares the elements, so none of them may be set again below
        ds.SOPClassUID, ds.SOPInstanceUID = _SINGLE_IMAGE, stand_in
        ds.Rows, ds.Columns = volume.grid.shape[1], volume.grid.shape[0]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = list(position), list(source.orientation)
        ds.PixelSpacing = list(source.pixel_spacing)
        ds.SliceThickness = ds.SpacingBetweenSlices = decimal(source.slice_spacing)
        images.append(ds)
    return images


def _description(label: SegmentLabel, concept: Concept, is_found: bool) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name=long_string(label.algorithm_name),
        family=codes.DCM.ArtificialIntelligence,
        version=long_string(label.algorithm_version or __version__),
    )
    tracking_uid = label.tracking_uid or new_uid()
    item = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=long_string(label.name),
        segmented_property_category=_coded(concept.category),
        segmented_property_type=_coded(concept.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=tracking_uid,
        tracking_id=f"{long_string(label.name)} {derived_uid(tracking_uid)[-8:]}",
        anatomic_regions=None if concept.region is None else [_coded(concept.region)],
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    # highdicom has no argument for left and right
    if concept.side is not None:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [_coded(concept.side)]
    if concept.region_side is not None:
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_coded(concept.region_side)]
    if not is_found:
        item.SegmentDescription = NOT_FOUND
    return item


def _coded(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)


def _restore_references(seg: Any, source: DicomSource, stand_ins: list[str]) -> None:
    """Put the true instances in the place of the stand-ins, and one reference to each file in the lists of sources."""
    from pydicom.dataset import Dataset

    true = dict(zip(stand_ins, source.references, strict=True))
    for group in seg.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                reference = true[item.ReferencedSOPInstanceUID]
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class, reference.instance
                if reference.frame is not None:
                    item.ReferencedFrameNumber = reference.frame
    files = dict.fromkeys((r.sop_class, r.instance) for r in source.references)
    items = []
    for sop_class, instance in files:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        items.append(item)
    seg.SourceImageSequence = items
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = items
