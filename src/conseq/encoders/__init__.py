"""The backbones by name: the settings class of each, whose values build the encoder."""

from conseq.encoders.attentive import AttentiveConfig
from conseq.encoders.bert4rec import BERT4RecConfig
from conseq.encoders.caser import CaserConfig
from conseq.encoders.comirec import ComiRecConfig
from conseq.encoders.encoder import Backbone, Encoder
from conseq.encoders.gcsan import GCSANConfig
from conseq.encoders.gru4rec import GRU4RecConfig
from conseq.encoders.matrix_factorization import MatrixFactorizationConfig
from conseq.encoders.sasrec import SASRecConfig
from conseq.encoders.srma import SRMAConfig

ENCODERS: dict[str, type[Backbone[Encoder]]] = {
    "sasrec": SASRecConfig,
    "gru4rec": GRU4RecConfig,
    "caser": CaserConfig,
    "attentive": AttentiveConfig,
    "bert4rec": BERT4RecConfig,
    "gcsan": GCSANConfig,
    "comirec": ComiRecConfig,
    "srma": SRMAConfig,
    "matrix_factorization": MatrixFactorizationConfig,
}
