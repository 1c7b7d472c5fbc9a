"""DICOM RT Structure Sets: the outline of a mask in patient millimetres, slice by slice."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent import __version__
from ibisagent.io.files import atomic_write
from ibisagent.io.outlines import pixel_outlines
from ibisagent.io.terminology import find_concept
from ibisagent.io.volume import Volume
from ibisagent.io.writers.dicom_source import (
    DicomSource,
    Reference,
    decimal,
    long_string,
    new_uid,
    quiet_pydicom,
    read_source,
)
from ibisagent.io.writers.keyholes import keyholed
from ibisagent.io.writers.label import SegmentLabel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_rtstruct"]

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_DECIMALS = 6


def write_rtstruct(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a mask as an RT Structure Set with one ROI, in the source's study and frame of reference.

    Contours follow the edges of voxels in the planes of the source's slices (LPS mm, to 1e-6), so that a reader that
    fills them by voxel centres gets the mask back, and their areas add up to the mask's. They have the type
    ``CLOSED_PLANAR``; holes are left out by keyholes (a channel of no width), and parts that touch at corners only are
    contours of their own. Readers may unite a slice's contours or XOR them. Each refers to its image. An empty mask is
    an ROI without contours whose description says that it was not found. Like the source, the file names the patient.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        A DICOM volume.
    path
        File to write.
    label
        Its name is the ROI's; :func:`ibisagent.io.terminology.find_concept` codes it.

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
        ds = _structure_set(mask, volume, source, label)
        with atomic_write(path) as f:
            ds.save_as(f, enforce_file_format=True)


def _structure_set(mask: NDArray[np.bool_], volume: Volume, source: DicomSource, label: SegmentLabel) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset

    now = datetime.datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    ds = Dataset()
    ds.update(source.header)
    meta: Any = FileMetaDataset()
    # explicit VR has no room for a contour of more than 64 KiB
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = _IMPLICIT_LITTLE, _RTSTRUCT
    # elements are shared with the header: those that differ are made anew, those of pictures are left out
    for element in [e for e in ds if e.keyword.startswith(("Modality", "Series", "LossyImage"))]:
        del ds[element.tag]
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = _RTSTRUCT, new_uid(), new_uid()
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta = meta
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "RTSTRUCT", 2000 + source.header.SeriesNumber % 1000, 1
    ds.SeriesDescription = long_string(f"Structures: {label.name}")
    ds.OperatorsName, ds.Manufacturer, ds.ManufacturerModelName = "", "ibisagent", "ibisagent"
    ds.SoftwareVersions = long_string(__version__)
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.StructureSetLabel, ds.StructureSetName = "SEGMENTATION", long_string(label.name)
    ds.StructureSetDate, ds.StructureSetTime = date, time
    ds.ReferencedFrameOfReferenceSequence = [_referenced_space(source)]
    ds.StructureSetROISequence = [_region(source, label, bool(mask.any()))]
    ds.ROIContourSequence = [_contours(mask, volume, source, label)]
    ds.RTROIObservationsSequence = [_observation(label, volume)]
    ds.ApprovalStatus = "UNAPPROVED"
    return ds


def _item(**elements: Any) -> Any:
    from pydicom.dataset import Dataset

    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _reference(reference: Reference, *, with_frame: bool) -> Any:
    item = _item(ReferencedSOPClassUID=reference.sop_class, ReferencedSOPInstanceUID=reference.instance)
    if with_frame and reference.frame is not None:
        item.ReferencedFrameNumber = reference.frame
    return item


def _referenced_space(source: DicomSource) -> Any:
    images = {reference.instance: _reference(reference, with_frame=False) for reference in source.references}
    series = _item(SeriesInstanceUID=source.header.SeriesInstanceUID, ContourImageSequence=list(images.values()))
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=source.header.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=source.header.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _region(source: DicomSource, label: SegmentLabel, is_found: bool) -> Any:
    item = _item(
        ROINumber=1,
        ReferencedFrameOfReferenceUID=source.header.FrameOfReferenceUID,
        ROIName=long_string(label.name),
        ROIGenerationAlgorithm="AUTOMATIC",
        ROIGenerationDescription=long_string(f"{label.algorithm_name} {label.algorithm_version or __version__}"),
    )
    if not is_found:
        item.ROIDescription = "not found: looked for in every slice, no voxel belongs to it"
    return item


def _contours(mask: NDArray[np.bool_], volume: Volume, source: DicomSource, label: SegmentLabel) -> Any:
    roi = _item(ReferencedROINumber=1, ROIDisplayColor=list(label.colour))
    items: list[Any] = []
    columns = volume.grid.lps_matrix[:3, :2]
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        # where the header says that the slice is, which a slightly uneven series says better than the grid
        origin = np.array([float(v) for v in source.positions[k]])
        for outline in pixel_outlines(np.ascontiguousarray(mask[:, :, k].T)):
            points = (keyholed(outline) - 0.5) @ columns.T + origin
            items.append(
                _item(
                    ContourImageSequence=[_reference(source.references[k], with_frame=True)],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(items) + 1,
                    ContourData=[decimal(v) for v in points.round(_DECIMALS).ravel().tolist()],
                )
            )
    if items:
        roi.ContourSequence = items
    return roi


def _observation(label: SegmentLabel, volume: Volume) -> Any:
    concept = find_concept(label.name, volume.body_part)
    item = _item(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="", ROIInterpreter="")
    code = _item(
        CodeValue=concept.type.value, CodingSchemeDesignator=concept.type.scheme, CodeMeaning=concept.type.meaning
    )
    item.RTROIIdentificationCodeSequence = [code]
    return item
