"""A small PET/CT study as an archive holds it, with who the patient is, and a PACS that misbehaves as it is told."""

import datetime
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from theraflow.pacs.association import send_at_once
from theraflow.pacs.connection import Connection
from theraflow.virtual.writer import Header, Injection, write_ct, write_pet, write_seg

# None of this may be told but where it was asked for.
NAME, PATIENT_ID, BIRTH_DATE, ACCESSION = "Quillfeather^Ottoline", "QF-778123", "19510304", "ACC4471190"
IDENTITY = ("quillfeather", "ottoline", "778123", "19510304", "4471190")


def write_study(folder: Path, patient_id: str = PATIENT_ID, slices: int = 12) -> Path:
    """A PET, its CT compressed by JPEG 2000, and a reader's segmentation, in `PET`, `CT` and `SEG`."""
    started = datetime.datetime(2023, 5, 1, 11)
    header = Header(patient_id, "fdg", "F", 72, 61.0, 164.0, started, "[18F]FDG PET/CT")
    values = np.random.default_rng(9).uniform(0, 20e3, (slices, 32, 33))
    write_pet(
        _image(values), folder / "PET", header, Injection("[18F]FDG", "18F", 300.0, started.replace(hour=10))
    )  # fmt: skip
    write_ct(_image(values[:5] / 10 - 1000), folder / "CT", header)
    write_seg({"tumour": values > 19e3}, folder / "PET", folder / "SEG" / "seg.dcm", header)
    for path in sorted(folder.rglob("*.dcm")):
        dataset = dcmread(path)
        dataset.PatientName, dataset.PatientBirthDate, dataset.AccessionNumber = NAME, BIRTH_DATE, ACCESSION
        if dataset.Modality == "CT":
            dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.save_as(path)
    return folder


def _image(values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing((4.0, 4.0, 3.0))
    return image


def datasets(folder: Path) -> dict[str, Dataset]:
    """All DICOM objects below a folder by SOPInstanceUID."""
    return {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, sorted(folder.rglob("*.dcm")))}


@dataclass
class Pacs:
    """What a false PACS does.

    Attributes:
        objects: what it lists and gives.
        given: which of them it gives by C-GET; all, if None.
        get_status: how it ends C-GET where it does not give all that it promises; None: as all is well.
        store: answers C-STORE, called with the event.
        on_find, on_get: called with the event before it answers.
        counted: NumberOfSeriesRelatedInstances, or None for what there are.
        tells_classes: whether it tells SOP classes.
        services: other than storage, that it offers.
        end: set when it is to stop, for what waits.
        contexts: numbers of presentation contexts that were proposed to it, by association.
        stored: SOPInstanceUIDs that came.
    """

    objects: list[Dataset] = field(default_factory=list)
    given: list[Dataset] | None = None
    get_status: int | None = None
    store: Callable = lambda event: 0x0000
    on_find: Callable = lambda event: None
    on_get: Callable = lambda event: None
    counted: int | None = None
    tells_classes: bool = True
    services: tuple = (StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet)
    end: threading.Event = field(default_factory=threading.Event)
    contexts: list[int] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, timeout_s: float = 60.0) -> Iterator[Connection]:
        """Let it listen while the block lasts."""
        entity = AE(ae_title="ARCHIVE")
        entity.supported_contexts = AllStoragePresentationContexts
        for context in entity.supported_contexts:
            context.scu_role = context.scp_role = True
        for service in self.services:
            entity.add_supported_context(service)
        handlers = [
            (evt.EVT_CONN_OPEN, send_at_once),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_C_STORE, self._store),
        ]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        try:
            yield Connection("127.0.0.1", server.socket.getsockname()[1], "ARCHIVE", "THERAFLOW", timeout_s=timeout_s)
        finally:
            self.end.set()
            server.shutdown()

    def _requested(self, event):
        self.contexts.append(len(event.assoc.requestor.primitive.presentation_context_definition_list))

    def _store(self, event):
        self.stored.append(event.request.AffectedSOPInstanceUID)
        return self.store(event)

    def _find(self, event):
        self.on_find(event)
        asked = event.identifier
        unique = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
        within = ("StudyInstanceUID", "SeriesInstanceUID")
        keys = {keyword: asked.get(keyword) for keyword in within if asked.get(keyword)}
        seen = set()
        for one in self.objects:
            uid = one[unique[asked.QueryRetrieveLevel]].value
            if uid in seen or any(one[keyword].value != key for keyword, key in keys.items()):
                continue
            seen.add(uid)
            answer = Dataset()
            for element in asked:
                if element.keyword in one and (self.tells_classes or element.keyword != "SOPClassUID"):
                    answer[element.tag] = one[element.tag]
            if "NumberOfSeriesRelatedInstances" in asked:
                count = sum(other.SeriesInstanceUID == one.SeriesInstanceUID for other in self.objects)
                answer.NumberOfSeriesRelatedInstances = self.counted or count
            yield 0xFF00, answer
        yield 0x0000, None

    def _get(self, event):
        self.on_get(event)
        promised = [one for one in self.objects if one.SeriesInstanceUID == event.identifier.SeriesInstanceUID]
        given = promised if self.given is None else self.given
        yield len(promised) if self.get_status is not None else len(given)
        for one in given:
            yield 0xFF00, one
        if self.get_status is not None:
            yield self.get_status, None
