"""`foreword serve` with a certificate, keys by option and pages of another origin, in a process of its own; what it refuses of these."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.given import Foreword
from server.given import predicted
from server.server_process import ServerProcess, save_prompts, start

from foreword.cli.support.serve_options import Access

KEY, OTHER, PAGE = "fw-first-key-of-the-option", "fw-second-key-of-the-option", "https://page.example"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    more = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words, *more], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path], foreword: Foreword) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("secure")
    keys = folder / "keys.txt"
    keys.write_text(foreword("make-key", "alice").stdout, "utf-8")
    keys.chmod(0o666)
    tls = ("--ssl-certfile", files[0], "--ssl-keyfile", files[1])
    more = ("--api-key", KEY, "--api-key", OTHER, "--keys", keys, "--allow-origin", PAGE, "--root-path", "llm/")
    found = start(save_prompts(folder), *tls, *more)
    yield found
    found.kill()


def ask_securely(url: str, certificate: Path, key: str, body: object) -> tuple[int, dict[str, str], object]:
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "Origin": PAGE}
    context = ssl.create_default_context(cafile=str(certificate))
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30, context=context) as response:
            return response.status, dict(response.headers), json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), json.loads(error.read())


def test_answers_come_over_https_to_every_key(secure: ServerProcess, files: tuple[Path, Path]) -> None:
    assert secure.url.startswith("https://")
    for path in ("/v1/classify", "/llm/v1/classify"):
        for key in (KEY, OTHER):
            status, headers, found = ask_securely(secure.url + path, files[0], key, {"model": "sentiment", "input": "a film"})
            assert status == 200 and headers["access-control-allow-origin"] == PAGE
            assert isinstance(found, dict) and found["data"][0]["label"] == predicted("sentiment", "a film").text
    assert ask_securely(secure.url + "/v1/classify", files[0], "wrong", {})[0] == 401
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(secure.url.replace("https", "http") + "/health", timeout=30)


def test_our_own_client_speaks_https(
    secure: ServerProcess, files: tuple[Path, Path], foreword: Foreword, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    assert foreword("ask", "writer", "a film", "--url", secure.url, "--key", KEY).stdout == predicted("writer", "a film").text + "\n"


def test_keys_are_never_shown_and_an_open_file_is_noted(secure: ServerProcess) -> None:
    said = "\n".join(secure.said)
    assert KEY not in said and OTHER not in said and "  keys:  3 keys" in secure.said
    note = next(line for line in secure.said if "note:" in line)
    path = note.partition("'")[2].partition("'")[0]
    assert note == f"  note: other users can change '{path}' and add keys of their own; run chmod go-w '{path}'."
    assert KEY not in repr(Access(api_key=[KEY]))


def test_what_cannot_be_served_is_refused_before_a_model_is_loaded(foreword: Foreword, files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = files
    locked = tmp_path / "locked.pem"
    subprocess.run(["openssl", "ec", "-in", key, "-out", locked, "-aes256", "-passout", "pass:word"], check=True, capture_output=True)
    both = "TLS needs a certificate and its key; give both --ssl-certfile and --ssl-keyfile."
    for words, sentence in {
        ("--ssl-certfile", certificate): both,
        ("--ssl-keyfile", key): both,
        ("--allow-origin", "page.example"): "--allow-origin 'page.example' is not an origin; give one such as https://example.org, "
        "without a path, or *.",
        ("--api-key", ""): "--api-key is not a key; give printable ASCII characters, such as a key that `foreword make-key` made.",
        ("--max-values", "3"): "--max-values is 3, but it must be at least 16.",
    }.items():
        found = foreword("serve", str(tmp_path), *words)
        assert (found.exit_code, found.stderr) == (2, f"foreword: error: {sentence}\n")
    for one, two in ((key, certificate), (tmp_path / "none.pem", key), (certificate, locked)):
        found = foreword("serve", str(tmp_path), "--ssl-certfile", one, "--ssl-keyfile", two)
        assert found.exit_code == 2 and "are not a certificate and its unencrypted key (" in found.stderr
        assert found.stderr.endswith("); give two PEM files.\n")


def test_the_help_fits_a_screen_of_80_columns(foreword: Foreword, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = foreword("serve", "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for option in ("--api-key", "--allow-origin", "--root-path", "--ssl-certfile", "--ssl-keyfile", "--max-values"):
        assert any(f" {option} " in line for line in lines), option
