"""The client and the real responder: from a name to a certificate, and what may come between."""

import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.client.scene import BASE, DIRECTORY, Answer, on, problem, rewritten, stage
from tests.wire import csr as make_csr
from tests.wire import new_key

from privet import (
    BadIdentifier,
    CertBundle,
    Client,
    ClientError,
    FileStore,
    KeyType,
    MemoryStore,
    Problem,
    ProblemType,
    SyncClient,
)
