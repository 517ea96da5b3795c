"""Only regular files of a limited size are read."""

import os
import socket
import time

import pytest

from d2_isonet.utils.files import read_regular, why_not_regular
from d2_isonet.utils.messages import UserError


def _socket(path):
    opened = socket.socket(socket.AF_UNIX)
    opened.bind(path.name)  # a socket's whole path has at most 108 characters
    return opened


@pytest.mark.parametrize("behind_link", [False, True])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_at_once(kind, behind_link, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.jpg"
    makers = {"FIFO": os.mkfifo, "socket": _socket, "folder": os.mkdir}
    makers.get(kind, lambda path: path.symlink_to("/dev/zero"))(path)
    if behind_link:
        path = tmp_path / "link.jpg"
        path.symlink_to("x.jpg")
    begin = time.monotonic()
    assert why_not_regular(path) == f"it is a {kind}, not a file"
    with pytest.raises(UserError, match=f"link.jpg|x.jpg cannot be read: it is a {kind}"):
        read_regular(path, 10)
    assert time.monotonic() - begin < 5


def test_a_file_is_read_up_to_a_size(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    assert why_not_regular(path) == ""
    assert "more than" in why_not_regular(path, 4)
    with pytest.raises(UserError, match="x cannot be read: it has 5e-06 MB, more than 4e-06 MB"):
        read_regular(path, 4)


def test_a_broken_link_and_a_loop_of_links_are_errors_of_the_system(tmp_path):
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileNotFoundError):
        why_not_regular(tmp_path / "broken")
    with pytest.raises(OSError, match="Too many levels"):
        read_regular(tmp_path / "loop", 1)
