"""DICOM series and multi-frame objects made on the spot: CT, MR and PET that dciodvfy accepts.

Arrays are (ni, nj, nk): i along a row (columns of the picture), j down the column, k from slice to slice. Affines are
4 x 4, index to LPS millimetres: column 0 is the direction of growing i. A sheared one is a tilted gantry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
_ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
PATIENT_NAME, PATIENT_ID = "Secret^Name", "SECRET-ID-77"
"""What must never be seen in any output."""


def uid(*parts: object) -> str:
    """A UID that the same parts always give."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["ibisagent", *map(str, parts)]))


def write_series(
    folder: Path,
    values: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    modality: str = "CT",
    series: str = "1",
    study: str = "1",
    slope: float | Sequence[float] = 1.0,
    intercept: float | None = None,
    photometric: str = "MONOCHROME2",
    instance_numbers: Sequence[int] | None = None,
    only: Sequence[int] | None = None,
    syntax: str | None = None,
    body_part: str = "CHEST",
    edit: Callable[[Any, int], None] | None = None,
) -> list[Path]:
    """Write one file a slice.

    Parameters
    ----------
    folder
        Where to; it is made if need be.
    values
        Real-world numbers (HU, ...) (ni, nj, nk), stored as 16-bit integers ``round((value - intercept) / slope)``.
    affine
        Index to LPS mm; None is voxels of 1 mm at the origin.
    modality
        ``CT``, ``MR`` or ``PT``.
    series, study
        Names from which the UIDs are made.
    slope, intercept
        The rescale elements; one slope a slice is allowed. The intercept is -1024 for CT and 0 for others by default.
    instance_numbers
        Numbers of the slices, k = 0 first; files are named by them, and SOP Instance UIDs made from them. Default is
        backwards, so that neither a name nor a number tells the place of a slice.
    only
        The k that are written; None is all.
    syntax
        Transfer syntax UID of the pixels; None is explicit VR little endian.
    edit
        Called with every data set and its k before it is written.

    Returns
    -------
    list of Path
        The files in the order of k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.eye(4) if affine is None else np.asarray(affine, np.float64)
    count = values.shape[2]
    intercept = (-1024.0 if modality == "CT" else 0.0) if intercept is None else intercept
    slopes = [float(s) for s in (slope if isinstance(slope, (list, tuple, np.ndarray)) else [slope] * count)]
    stored = [np.rint((values[:, :, k].T - intercept) / slopes[k]) for k in range(count)]
    signed = any(plane.min() < 0 for plane in stored)
    paths = []
    for k in range(count) if only is None else only:
        number = count - k if instance_numbers is None else instance_numbers[k]
        ds = _patient(_CLASSES[modality], modality, study, series, uid(study, series, "image", number), lps, body_part)
        ds.InstanceNumber = number
        _write_place(ds, lps, k)
        _write_pixels(ds, stored[k], signed, photometric)
        {"CT": _ct, "MR": _mr, "PT": _pet}[modality](ds, values, k, count)
        if modality != "MR" or (slopes[k], intercept) != (1.0, 0.0):
            ds.RescaleSlope, ds.RescaleIntercept = _ds(slopes[k]), _ds(intercept)
            if modality != "PT":
                ds.RescaleType = "HU" if modality == "CT" else "US"
        if edit is not None:
            edit(ds, k)
        paths.append(save(ds, folder / f"{series}-{number:04d}.dcm", syntax))
    return paths


def write_multiframe(
    path: Path,
    values: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    modality: str = "CT",
    series: str = "1",
    study: str = "1",
    order: Sequence[int] | None = None,
    slope: float = 1.0,
    intercept: float | None = None,
    syntax: str | None = None,
    body_part: str = "CHEST",
    edit: Callable[[Any], None] | None = None,
) -> Path:
    """Write an Enhanced CT or Enhanced MR object with one frame a slice.

    Parameters
    ----------
    order
        The k of every frame; None is backwards. Others as :func:`write_series`.
    edit
        Called with the data set before it is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = np.eye(4) if affine is None else np.asarray(affine, np.float64)
    count = values.shape[2]
    frames = list(range(count))[::-1] if order is None else list(order)
    intercept = (-1024.0 if modality == "CT" else 0.0) if intercept is None else intercept
    stored = np.stack([np.rint((values[:, :, k].T - intercept) / slope) for k in frames])
    ds = _patient(_ENHANCED[modality], modality, study, series, uid(study, series, "multi-frame"), lps, body_part)
    ds.InstanceNumber = 1
    _write_pixels(ds, stored, bool(stored.min() < 0), "MONOCHROME2")
    _enhanced(ds, modality, lps, frames, slope, intercept, body_part)
    if edit is not None:
        edit(ds)
    return save(ds, path, syntax)


def save(ds: Any, path: Path, syntax: str | None = None) -> Path:
    """Write a data set as a DICOM file; `syntax` other than explicit VR little endian is made by pydicom or GDCM."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    plain = ImplicitVRLittleEndian if syntax == ImplicitVRLittleEndian else ExplicitVRLittleEndian
    ds.file_meta.TransferSyntaxUID = plain
    ds.save_as(path, enforce_file_format=True, implicit_vr=plain == ImplicitVRLittleEndian, little_endian=True)
    if syntax == RLELossless:
        again = pydicom.dcmread(path)
        again.compress(RLELossless, generate_instance_uid=False)
        again.save_as(path)
    elif syntax not in (None, plain):
        part = path.with_name(f".{path.name}.part")
        _transcode(path, part, str(syntax))
        coded = pydicom.dcmread(part)  # only its pixels: GDCM writes the geometry of frames anew, in its own way
        ds.file_meta.TransferSyntaxUID = coded.file_meta.TransferSyntaxUID
        ds["PixelData"] = coded["PixelData"]
        ds.save_as(path, enforce_file_format=True)
        part.unlink()
    return path


def _transcode(path: Path, part: Path, syntax: str) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(part))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _ds(value: float) -> str:
    """A decimal string: at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value))


def _patient(sop_class: str, modality: str, study: str, series: str, instance: str, lps: Any, body_part: str) -> Any:
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", study), uid("study", study, "series", series)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("study", study, "frame"), ""
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT_NAME, PATIENT_ID, "19500101", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200102", "030405", "SECRET-STUDY", "SECRET-ACC"
    ds.SeriesDate, ds.SeriesTime, ds.AcquisitionDate, ds.AcquisitionTime = "20200102", "030405", "20200102", "030405"
    ds.ContentDate, ds.ContentTime = "20200102", "030405"
    ds.ReferringPhysicianName, ds.Manufacturer, ds.ManufacturerModelName = "Secret^Doctor", "ibisagent", "phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription = modality, 1, "SECRET description"
    ds.BodyPartExamined, ds.PatientPosition = body_part, "HFS"
    return ds


def _write_place(ds: Any, lps: Any, k: int) -> None:
    row, column = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    origin = (lps @ (0, 0, k, 1))[:3]
    ds.ImageOrientationPatient = [_ds(v) for v in (*row, *column)]
    ds.ImagePositionPatient = [_ds(v) for v in origin]
    ds.PixelSpacing = [_ds(np.linalg.norm(lps[:3, 1])), _ds(np.linalg.norm(lps[:3, 0]))]
    ds.SliceThickness = _ds(abs(np.cross(row, column) @ lps[:3, 2]))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionNumber = 1


def _write_pixels(ds: Any, stored: Any, signed: bool, photometric: str) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, int(signed)
    limits = (-32768, 32767) if signed else (0, 65535)
    assert limits[0] <= stored.min() and stored.max() <= limits[1], "values do not fit 16 bits"
    if stored.ndim == 3:
        ds.NumberOfFrames = stored.shape[0]
    ds.PixelData = np.ascontiguousarray(stored).astype("<i2" if signed else "<u2").tobytes()
    ds["PixelData"].VR = "OW"


def _ct(ds: Any, values: Any, k: int, count: int) -> None:
    ds.KVP = "120"


def _mr(ds: Any, values: Any, k: int, count: int) -> None:
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = "500", "10", "1"
    ds.EchoNumbers = "1"


def _pet(ds: Any, values: Any, k: int, count: int) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    del ds.AcquisitionNumber
    ds.SeriesType, ds.Units, ds.CountsSource, ds.NumberOfSlices = ["STATIC", "IMAGE"], "BQML", "EMISSION", count
    ds.CorrectedImage, ds.DecayCorrection, ds.CollimatorType = ["DECY", "ATTN"], "START", "NONE"
    ds.AttenuationCorrectionMethod = "measured"
    ds.ImageIndex = k + 1
    ds.FrameReferenceTime, ds.ActualFrameDuration = "0", "60000"
    ds.DecayFactor = "1"
    drug = Dataset()
    drug.RadionuclideCodeSequence = Sequence([_code("77004003", "SCT", "^18^Fluorine")])
    drug.RadiopharmaceuticalStartTime, drug.RadionuclideTotalDose = "020405", "370000000"
    drug.RadionuclideHalfLife, drug.RadionuclidePositronFraction = "6586.2", "0.97"
    ds.RadiopharmaceuticalInformationSequence = Sequence([drug])
    lying = _code("102538003", "SCT", "recumbent")
    lying.PatientOrientationModifierCodeSequence = Sequence([_code("40199007", "SCT", "supine")])
    ds.PatientOrientationCodeSequence = Sequence([lying])
    ds.PatientGantryRelationshipCodeSequence = Sequence([_code("102540008", "SCT", "headfirst")])
    del ds.PatientPosition  # the codes stand for it


def _code(value: str, scheme: str, meaning: str) -> Any:
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def _item(**elements: Any) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return Sequence([ds])


def _enhanced(
    ds: Any, modality: str, lps: Any, frames: list[int], slope: float, intercept: float, body_part: str
) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    del ds.BodyPartExamined
    for name in ("AcquisitionDate", "AcquisitionTime"):
        delattr(ds, name)
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]  # spares the details of an acquisition
    ds.AcquisitionDateTime, ds.AcquisitionDuration, ds.ContentQualification = "20200102030405", 1.0, "RESEARCH"
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.BurnedInAnnotation, ds.LossyImageCompression, ds.PresentationLUTShape = "NO", "00", "IDENTITY"
    ds.AcquisitionNumber, ds.AcquisitionContextSequence = 1, Sequence([])
    ds.InstanceNumber = 1
    organization = uid("dimensions")
    ds.DimensionOrganizationSequence = _item(DimensionOrganizationUID=organization)
    ds.DimensionOrganizationType = "3D"
    pointer = Dataset()
    pointer.DimensionOrganizationUID = organization
    pointer.DimensionIndexPointer, pointer.FunctionalGroupPointer = 0x00200032, 0x00209113
    ds.DimensionIndexSequence = Sequence([pointer])
    place = Dataset()
    _write_place(place, lps, 0)
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(PixelSpacing=place.PixelSpacing, SliceThickness=place.SliceThickness)
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=place.ImageOrientationPatient)
    shared.FrameAnatomySequence = _item(
        FrameLaterality="U", AnatomicRegionSequence=Sequence([_code("51185008", "SCT", "Thorax")])
    )
    kind: dict[str, Any] = {
        "FrameType": ["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
    }
    shared.PixelValueTransformationSequence = _item(
        RescaleSlope=_ds(slope), RescaleIntercept=_ds(intercept), RescaleType="HU" if modality == "CT" else "US"
    )
    shared.FrameVOILUTSequence = _item(WindowCenter="40", WindowWidth="400")
    if modality == "CT":
        ds.MultienergyCTAcquisition = "NO"
        shared.CTImageFrameTypeSequence = _item(**kind)
        shared.IrradiationEventIdentificationSequence = _item(IrradiationEventUID=uid("irradiation"))
    else:
        kind |= {"ComplexImageComponent": "MAGNITUDE", "AcquisitionContrast": "T1"}
        shared.MRImageFrameTypeSequence = _item(**kind)
        ds.ComplexImageComponent, ds.AcquisitionContrast = "MAGNITUDE", "T1"
        ds.ResonantNucleus, ds.KSpaceFiltering, ds.MagneticFieldStrength = "1H", "NONE", 3.0
        ds.ApplicableSafetyStandardAgency = "IEC"
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for k in frames:
        group = Dataset()
        origin = [_ds(v) for v in (lps @ (0, 0, k, 1))[:3]]
        group.PlanePositionSequence = _item(ImagePositionPatient=origin)
        group.FrameContentSequence = _item(
            DimensionIndexValues=[k + 1], StackID="1", InStackPositionNumber=k + 1, FrameAcquisitionNumber=1
        )
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
