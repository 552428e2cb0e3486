"""Credentials of the tests, and none of the user's; the server that says what it is told."""

from __future__ import annotations

from tests.contract.conftest import certificate as certificate
from tests.contract.conftest import credentials as credentials
from tests.contract.conftest import scripted as scripted
from tests.contract.conftest import tls_moto as tls_moto
