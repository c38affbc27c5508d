"""Tests of the operations: they are the model's, and each is found where its clients send it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.errors import MethodNotAllowed, UnknownOperation
from miniλ.gateway.service_model import operations
from miniλ.gateway.service_model.operations import OPERATIONS, Operation, match

MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
NAMES = MODEL.operation_names

# What AWS answers, where the model says something else.
STATUSES = {"DeleteFunction": 204}  # recorded; the model's 200 is for a body that AWS does not send

# The characters with a meaning in a URL, and two letters of more than one byte.
AWKWARD = "arn:aws:x/y ..;a=b&c?d#e%2f+é$λ"


def serialized(
    operation: OperationModel, parameters: dict[str, Any]
) -> tuple[str, str, dict[str, str]]:
    """Return method, raw path and query of a request as botocore sends it."""
    serializer = create_serializer("rest-json", include_validation=False)
    request = serializer.serialize_to_request(parameters, operation)
    prepare_request_dict(request, "http://localhost:9001")
    prepared = create_request_object(request).prepare()
    url = urlsplit(prepared.url)
    return prepared.method, url.path, dict(parse_qsl(url.query, keep_blank_values=True))


def places(operation: OperationModel, location: str) -> list[str]:
    """Return the members of an operation's input that are in this place."""
    members = operation.input_shape.members.items()
    return [name for name, shape in members if shape.serialization.get("location") == location]


def test_all_operations_of_the_model_are_known() -> None:
    """All 91 operations of the model, and no others."""
    assert sorted(NAMES) == sorted(OPERATIONS)
    assert 91 == len(OPERATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_as_the_model_has_it(name: str) -> None:
    """Method, path and status are the model's, except for recorded statuses of AWS."""
    model = MODEL.operation_model(name)
    http = model.http
    status = STATUSES.get(name, http["responseCode"])
    payload = model.input_shape.serialization.get("payload")
    blob = payload is not None and model.input_shape.members[payload].type_name == "blob"

    expected = Operation(name, http["method"], http["requestUri"], status, blob)

    assert expected == OPERATIONS[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_found_where_botocore_sends_it(name: str) -> None:
    """Path parameters of any text come back unchanged."""
    model = MODEL.operation_model(name)
    parameters = dict.fromkeys(places(model, "uri"), AWKWARD)
    others = dict.fromkeys(places(model, "querystring"), "1")

    matched = match(*serialized(model, {**parameters, **others}))

    assert (OPERATIONS[name], parameters) == matched


@pytest.mark.parametrize("name", NAMES)
def test_a_trailing_slash_is_no_other_path(name: str) -> None:
    """Some clients end a path with a slash."""
    model = MODEL.operation_model(name)
    method, path, query = serialized(model, dict.fromkeys(places(model, "uri"), "x"))

    assert OPERATIONS[name] == match(method, path + "/", query)[0]


def test_no_place_of_a_path_is_both_a_word_and_a_name() -> None:
    """The name of a function is never taken for a literal segment of a path."""

    def places_below(node: operations._Node) -> list[operations._Node]:
        after = [*node.literal.values(), *([node.wild] if node.wild else [])]
        return [node, *(below for each in after for below in places_below(each))]

    torn = [node.parameter for node in places_below(operations._ROOT) if node.literal and node.wild]

    assert [] == torn


@pytest.mark.parametrize(
    "name",
    [
        "function",
        "functions",
        "hello:live",
        "arn:aws:lambda:eu-west-1:123456789012:function:hello:7",
    ],
)
@pytest.mark.parametrize("encode", [str, quote, lambda name: quote(name, safe="")])
def test_a_function_has_any_name_in_any_encoding(name: str, encode: Any) -> None:
    """Colons may be encoded or not, and "function", of emulators, is a plain name."""
    path = f"/2015-03-31/functions/{encode(name)}/invocations"

    assert (OPERATIONS["Invoke"], {"FunctionName": name}) == match("POST", path, {})


def test_a_segment_is_decoded_once() -> None:
    """A segment is decoded once: one that was encoded twice is encoded once then."""
    _, parameters = match("GET", "/2015-03-31/functions/a%252fb", {})

    assert {"FunctionName": "a%2fb"} == parameters


def test_an_encoded_slash_is_part_of_a_name() -> None:
    """An encoded slash does not begin another segment."""
    _, parameters = match("GET", "/2015-03-31/functions/..%2f..%2fetc", {})

    assert {"FunctionName": "../../etc"} == parameters


def test_an_encoded_letter_of_a_word_is_the_word() -> None:
    """A client may encode more characters than it must."""
    operation, _ = match("GET", "/2015-03-31/%66unctions/x", {})

    assert OPERATIONS["GetFunction"] == operation


@pytest.mark.parametrize("name", ["naïve", "関数", "x" * 170, "a+b", "a b"])
def test_a_name_that_lambda_would_refuse_is_a_name_here(name: str) -> None:
    """A path admits names that Lambda does not: validation has a message for them."""
    _, parameters = match("GET", f"/2015-03-31/functions/{quote(name)}", {})

    assert {"FunctionName": name} == parameters


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "*",
        "2015-03-31/functions",
        "/2015-03-31",
        "/2015-03-31/functions/x/nothing",
        "/2015-03-31/functions/x/invocations/x",
        "/2015-03-30/functions",
        "/2015-03-31//functions",
        "//2015-03-31/functions",
        "/2015-03-31/functions//invocations",
        "/2015-03-31/functions/x//",
        "/2015-03-31/functions/./invocations",
        "/2015-03-31/functions/../invocations",
        "/2015-03-31/functions/%2e%2e/invocations",
        "/2015-03-31/functions/x%00",
        "/2015-03-31/functions/%0a",
        "/2015-03-31/functions/x%7f",
        "/2015-03-31/functions/x%c2%85",
        "/2015-03-31/functions/%ff",
        "/2015-03-31/functions/%c3",
        "/2015-03-31/functions/%ed%a0%80",
        "/2015-03-31/functions/%zz",
        "/2015-03-31/functions/x%",
        "/2015-03-31/functions/x%2",
        "/2015-03-31/functions/\udcff",
        "/2015-03-31/functions/\udcff%41",
        "/2015-03-31%2ffunctions",
        "/2015-03-31/{FunctionName}",
    ],
)
def test_a_path_that_is_none_is_unknown(path: str) -> None:
    """Empty segments, dots, control characters and bytes that are not UTF-8 are unknown paths."""
    with pytest.raises(UnknownOperation, match="Lambda has no operation with the path"):
        match("GET", path, {})


def test_the_message_of_an_unknown_path_is_short_and_printable() -> None:
    """The message quotes the beginning of a path, which may have any length."""
    with pytest.raises(UnknownOperation) as caught:
        match("GET", "/\udcff" + "x" * 9000, {})

    assert len(str(caught.value)) < 300
    assert str(caught.value).isascii()


def test_another_method_is_told_which_there_are() -> None:
    """405 names the methods of the path, in order."""
    with pytest.raises(MethodNotAllowed) as caught:
        match("PATCH", "/2015-03-31/functions/x/aliases/live", {})

    expected = "PATCH is not allowed for /2015-03-31/functions/x/aliases/live: use DELETE, GET, PUT"
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"find": "LayerVersion", "Arn": "x"}, "GetLayerVersionByArn"),
        ({"find": "layerversion"}, "ListLayers"),
        ({"find": ""}, "ListLayers"),
        ({}, "ListLayers"),
    ],
)
def test_layers_are_listed_or_one_is_found(query: dict[str, str], name: str) -> None:
    """One path, two operations: `find=LayerVersion` tells them apart."""
    assert OPERATIONS[name] == match("GET", "/2018-10-31/layers", query)[0]


@pytest.mark.parametrize(
    ("method", "query", "name"),
    [
        ("GET", {"List": "ALL"}, "ListProvisionedConcurrencyConfigs"),
        ("GET", {"Qualifier": "1"}, "GetProvisionedConcurrencyConfig"),
        ("PUT", {"List": "ALL"}, "PutProvisionedConcurrencyConfig"),
    ],
)
def test_provisioned_concurrency_is_of_one_or_of_all(
    method: str, query: dict[str, str], name: str
) -> None:
    """`List=ALL` selects another operation for a GET, and for no other method."""
    path = "/2019-09-30/functions/x/provisioned-concurrency"

    assert OPERATIONS[name] == match(method, path, query)[0]


segments = st.one_of(
    st.sampled_from(
        ["2015-03-31", "functions", "2018-10-31", "layers", "", "..", "%2e", "invocations"]
    ),
    st.text(max_size=8),
    st.text(max_size=8).map(lambda text: quote(text.encode(errors="surrogatepass"), safe="")),
    st.binary(max_size=6).map(quote),
)


@settings(
    deadline=None, database=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", ""]),
    parts=st.lists(segments, max_size=7),
)
def test_any_path_is_an_operation_or_an_error(method: str, parts: list[str]) -> None:
    """Any text as a path is matched or refused, and the parameters of a match can be used."""
    try:
        _, parameters = match(method, "/" + "/".join(parts), {})
    except (UnknownOperation, MethodNotAllowed):
        return

    for value in parameters.values():
        assert value.encode()
        assert value not in {"", ".", ".."}
        assert not any(character < " " for character in value)
