"""Tests of the keys file: what each key may do, and which files are refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import InvalidParameterValue
from miniλ.gateway.http import keys
from miniλ.names import Place

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
[keys.AKIAADMIN]
secret = "s3cr3t-of-admin"
allow = ["*"]

[keys.AKIAORDERS]
secret = "s3cr3t-of-orders"
allow = ["lambda:Invoke*", "LAMBDA:getfunction", "lambda:Get?unction?oncurrency"]
functions = ["orders-*", "stock?"]
account = "123456789012"

[keys.AKIALISTS]
secret = "s3cr3t-of-lists"
allow = ["lambda:List*", "lambda:GetAccountSettings"]
functions = ["orders-*"]

[keys.111122223333]
secret = "s3cr3t-of-account"
allow = []
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a keys file that only its owner can read."""
    return write(tmp_path, FILE)


def write(directory: Path, text: str) -> Path:
    """Return a new file with this text and mode 600."""
    path = directory / "keys.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def refused(path: Path) -> str:
    """Return the message of the error for a keys file."""
    with pytest.raises(InvalidParameterValue) as caught:
        keys.load(path)
    return str(caught.value)


def test_a_key_id_has_its_secret(file: Path) -> None:
    """Ids are exact; an unknown id has no secret."""
    loaded = keys.load(file)

    assert "s3cr3t-of-admin" == loaded.secret("AKIAADMIN")
    assert "s3cr3t-of-account" == loaded.secret("111122223333")
    assert loaded.secret("akiaadmin") is None
    assert loaded.secret("") is None


@pytest.mark.parametrize(
    ("key_id", "action", "function", "may"),
    [
        # All actions.
        ("AKIAADMIN", "lambda:CreateFunction", "any", True),
        ("AKIAADMIN", "lambda:ListFunctions", None, True),
        ("AKIAADMIN", "sts:GetCallerIdentity", None, True),
        # Patterns of actions, in any case.
        ("AKIAORDERS", "lambda:InvokeFunction", "orders-in", True),
        ("AKIAORDERS", "lambda:InvokeFunctionUrl", "orders-in", True),
        ("AKIAORDERS", "lambda:invokefunction", "orders-in", True),
        ("AKIAORDERS", "lambda:GetFunction", "orders-in", True),
        ("AKIAORDERS", "lambda:GetFunctionConcurrency", "orders-in", True),
        ("AKIAORDERS", "lambda:GetFunctionConfiguration", "orders-in", False),
        ("AKIAORDERS", "lambda:DeleteFunction", "orders-in", False),
        ("AKIAORDERS", "xlambda:InvokeFunction", "orders-in", False),
        # Patterns of names, in their own case and from end to end.
        ("AKIAORDERS", "lambda:InvokeFunction", "orders-", True),
        ("AKIAORDERS", "lambda:InvokeFunction", "stock1", True),
        ("AKIAORDERS", "lambda:InvokeFunction", "stock", False),
        ("AKIAORDERS", "lambda:InvokeFunction", "stock12", False),
        ("AKIAORDERS", "lambda:InvokeFunction", "Orders-in", False),
        ("AKIAORDERS", "lambda:InvokeFunction", "my-orders-in", False),
        ("AKIAORDERS", "lambda:InvokeFunction", "", False),
        # A key that may do nothing, and an unknown key.
        ("111122223333", "lambda:InvokeFunction", "orders-in", False),
        ("111122223333", "lambda:ListFunctions", None, False),
        ("AKIANOBODY", "lambda:InvokeFunction", "orders-in", False),
        ("AKIANOBODY", "lambda:ListFunctions", None, False),
    ],
)
def test_a_key_may_what_its_file_allows(
    file: Path, key_id: str, action: str, function: str | None, *, may: bool
) -> None:
    """Action and function must both match; * is any text and ? any character."""
    assert may == keys.load(file).may(key_id, action, function)


@pytest.mark.parametrize(
    ("action", "may"),
    [
        ("lambda:GetAccountSettings", True),
        ("lambda:getaccountsettings", True),
        ("lambda:ListFunctions", False),
        ("lambda:ListLayers", False),
    ],
)
def test_a_key_for_some_functions_does_account_wide_what_is_named(
    file: Path, action: str, *, may: bool
) -> None:
    """A pattern does not allow an operation on all functions to a key for some of them."""
    loaded = keys.load(file)

    assert may == loaded.may("AKIALISTS", action, None)
    assert loaded.may("AKIALISTS", "lambda:ListTags", "orders-in")


def test_brackets_are_no_pattern(tmp_path: Path) -> None:
    """Patterns are IAM's: brackets, which only fnmatch has, are refused when the file is read."""
    path = write(tmp_path, '[keys.A]\nsecret = "s"\nallow = ["*"]\nfunctions = ["[ab]"]\n')

    assert "functions[0]" in refused(path)


@pytest.mark.parametrize(
    ("key_id", "account"),
    [
        ("AKIAORDERS", "123456789012"),
        ("AKIAADMIN", None),
        ("111122223333", "111122223333"),
        ("444455556666", "444455556666"),
        ("44445555666", None),
        ("4444555566667", None),
        ("44445555666²", None),
        ("", None),
    ],
)
def test_a_key_is_of_an_account(file: Path, key_id: str, account: str | None) -> None:
    """By the file, or by an id of twelve digits, of a known key and of an unknown one."""
    assert account == keys.load(file).account_of(key_id)


def test_the_word_of_the_file_is_before_the_digits(tmp_path: Path) -> None:
    """An id of twelve digits may be given another account."""
    text = '[keys.111122223333]\nsecret = "s"\nallow = []\naccount = "000000000000"\n'

    assert "000000000000" == keys.load(write(tmp_path, text)).account_of("111122223333")


@pytest.mark.parametrize(
    ("operation", "action"),
    [
        ("Invoke", "lambda:InvokeFunction"),
        ("InvokeWithResponseStream", "lambda:InvokeFunction"),
        ("GetLayerVersionByArn", "lambda:GetLayerVersion"),
        ("CreateFunction", "lambda:CreateFunction"),
    ],
)
def test_operations_have_the_names_of_iam(operation: str, action: str) -> None:
    """Most have their own name; Invoke and its streamed form share one."""
    assert action == keys.action_of(operation)


def test_a_denied_action_has_iam_s_message() -> None:
    """The message names the key, the action and the function; * for no one function."""
    one = keys.denied("AKIA", "lambda:CreateFunction", "x", Place("us-east-1", "000000000000"))
    all_of_them = keys.denied(
        "AKIA", "lambda:ListFunctions", None, Place("us-east-1", "000000000000")
    )

    assert str(one) == (
        "User: arn:aws:iam::000000000000:user/AKIA is not authorized to perform: "
        "lambda:CreateFunction on resource: arn:aws:lambda:us-east-1:000000000000:function:x "
        "because no identity-based policy allows the lambda:CreateFunction action"
    )
    assert ("AccessDeniedException", 403) == (one.code, one.status)
    assert "on resource: * because" in str(all_of_them)


def test_secrets_are_not_printed(file: Path) -> None:
    """A traceback with the values of variables shows no secret."""
    loaded = keys.load(file)

    assert "<Keys 111122223333, AKIAADMIN, AKIALISTS, AKIAORDERS>" == repr(loaded)
    assert "s3cr3t" not in repr(loaded._keys)


# Files that are refused


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_can_open_is_refused(file: Path, mode: int) -> None:
    """The message has the chmod to run."""
    file.chmod(mode)

    assert refused(file) == (
        f"The keys file {file} is open to others (mode {mode:04o}): chmod 600 {file}"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_we_can_open_is_read(file: Path, mode: int) -> None:
    """Mode 400 is enough: the file is not written."""
    file.chmod(mode)

    assert keys.load(file).secret("AKIAADMIN")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    """The owner of a file can read and change its keys."""
    os.chown(file, 12345, -1)

    assert refused(file) == (
        f"The keys file {file} belongs to user 12345, who can change it: chown 0 {file}"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "cannot be read: [Errno 2]"),
        ("directory", "cannot be read: [Errno 21]"),
        ("pipe", "is not a regular file"),
    ],
)
def test_a_path_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str, words: str) -> None:
    """A missing file, a directory, a pipe without a writer: none of them blocks."""
    path = tmp_path / "keys.toml"
    if kind == "directory":
        path.mkdir(0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)

    assert refused(path).startswith(f"The keys file {path} {words}")


KEY = '[keys.AKIA]\nsecret = "s3cr3t"\nallow = ["lambda:*"]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[keys", "cannot be read: "),
        (b"\xff", "cannot be read: "),
        ("", "must have a table [keys.KEYID] for each key and no other, got nothing"),
        ("keys = 1", "must have a table [keys.KEYID]"),
        ("[keys]", "must have a table [keys.KEYID]"),
        (KEY + "[kyes.B]\n", "no other, got keys, kyes"),
        (KEY + "function = []\n", "keys.AKIA: Object contains unknown field `function`"),
        (KEY + "functions = 'x'\n", "keys.AKIA: Expected `array`, got `str` - at `$.functions`"),
        (KEY + "functions = ['a b']\n", "at `$.functions[0]`"),
        (KEY + "functions = ['arn:aws:lambda:r:1:function:f']\n", "at `$.functions[0]`"),
        (KEY + "account = '12345678901'\n", "at `$.account`"),
        (KEY + 'account = "123456789012\\n"\n', "at `$.account`"),
        (KEY.replace("lambda:*", "InvokeFunction"), "at `$.allow[0]`"),
        (KEY.replace("lambda:*", "lambda:*\\n"), "at `$.allow[0]`"),
        (KEY.replace("s3cr3t", ""), "at `$.secret`"),
        ('[keys.AKIA]\nallow = ["*"]\n', "keys.AKIA: Object missing required field `secret`"),
        ('[keys.AKIA]\nsecret = "s"\n', "keys.AKIA: Object missing required field `allow`"),
        ("[keys]\nAKIA = 1\n", "keys.AKIA: Expected `object`, got `int`"),
        (KEY.replace("AKIA", '"A/B"'), "keys.A/B: a key id is 1 to 128 letters, digits"),
        (KEY.replace("AKIA", '""'), "a key id is 1 to 128 letters, digits"),
        (KEY.replace("AKIA", "A" * 129), "a key id is 1 to 128 letters, digits"),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    """The message names the file, the key and the allowed values; it shows no secret."""
    path = write(tmp_path, "")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    message = refused(path)

    assert message.startswith(f"The keys file {path}")
    assert words in message
    assert "s3cr3t" not in message
    if "$" in words or "Object" in words:
        assert "(a key has secret, allow, functions, account)" in message
