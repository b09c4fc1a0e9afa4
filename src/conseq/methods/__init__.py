"""The methods by name."""

from typing import Any

from conseq.methods.bpr import BPR, BPRConfig
from conseq.methods.cl4srec import CL4SRec, CL4SRecConfig
from conseq.methods.cloze import Cloze, ClozeConfig
from conseq.methods.comirec import ComiRec, ComiRecConfig
from conseq.methods.coserec import CoSeRec, CoSeRecConfig
from conseq.methods.dssrec import DSSRec, DSSRecConfig
from conseq.methods.duorec import DuoRec, DuoRecConfig
from conseq.methods.ec4srec import EC4SRec, EC4SRecConfig
from conseq.methods.ecl_sr import ECLSR, ECLSRConfig
from conseq.methods.elecrec import ELECRec, ELECRecConfig
from conseq.methods.iclrec import ICLRec, ICLRecConfig
from conseq.methods.mclrec import MCLRec, MCLRecConfig
from conseq.methods.mclsr import MCLSR, MCLSRConfig
from conseq.methods.method import Method
from conseq.methods.next_item import NextItem, NextItemConfig
from conseq.methods.s3rec import S3Rec, S3RecConfig
from conseq.methods.srma import SRMA, SRMAConfig
from conseq.methods.view_contrast import ViewContrast, ViewContrastConfig

METHODS: dict[str, tuple[type[Method[Any]], type[Any]]] = {
    "bpr": (BPR, BPRConfig),
    "cl4srec": (CL4SRec, CL4SRecConfig),
    "cloze": (Cloze, ClozeConfig),
    "comirec": (ComiRec, ComiRecConfig),
    "coserec": (CoSeRec, CoSeRecConfig),
    "dssrec": (DSSRec, DSSRecConfig),
    "duorec": (DuoRec, DuoRecConfig),
    "ec4srec": (EC4SRec, EC4SRecConfig),
    "ecl_sr": (ECLSR, ECLSRConfig),
    "elecrec": (ELECRec, ELECRecConfig),
    "iclrec": (ICLRec, ICLRecConfig),
    "mclrec": (MCLRec, MCLRecConfig),
    "mclsr": (MCLSR, MCLSRConfig),
    "next_item": (NextItem, NextItemConfig),
    "s3rec": (S3Rec, S3RecConfig),
    "srma": (SRMA, SRMAConfig),
    "view_contrast": (ViewContrast, ViewContrastConfig),
}
