"""Nothing is fetched when the package is imported or used, and help needs no torch."""

import subprocess
import sys

OFFLINE = """
import socket

def refused(*args, **kwargs):
    raise AssertionError("something asked for the network")

socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = refused
socket.create_connection = socket.getaddrinfo = refused
import torch
import propose_prob
distribution = propose_prob.load("propose-cmu17").conditional(torch.randn(17, 2))
print(tuple(distribution.sample((5,)).shape))
"""

HELP = """
import sys
from propose_prob.cli import main
assert main(["--help"]) == 0
print("torch" in sys.modules, "numpy" in sys.modules)
"""


def _run(program):
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout


def test_import_and_first_samples_open_no_socket():
    assert _run(OFFLINE).strip() == "(5, 17, 3)"


def test_help_needs_neither_torch_nor_numpy():
    assert _run(HELP).splitlines()[-1] == "False False"
