"""Tests of validation: the parameters of a request, and the types that cannot be read."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, MultiDict

from miniλ.errors import SerializationFailed, ValidationFailed
from miniλ.gateway.service_model.inputs import INPUTS, Located
from miniλ.gateway.service_model.operations import OPERATIONS, match
from miniλ.gateway.service_model.validate import parameters
from tests.unit.gateway.service_model.requests import (
    EXAMPLES,
    FUNCTION_ARN,
    MODEL,
    create,
    function,
    unreadable,
)

SERVICE = ServiceModel(MODEL, "lambda")

NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"


# A request of botocore, there and back


def example(name: str, *, everything: bool) -> Any:
    """Return a value for a shape of the model: with all its members, or with those it must have."""
    shape = MODEL["shapes"][name]
    match shape["type"]:
        case "string":
            if "enum" in shape:
                return shape["enum"][-1]
            return EXAMPLES.get(name, "é" * max(shape.get("min", 0), 1))
        case "integer" | "long":
            return max(shape.get("min", 5), 0)
        case "double":
            return shape["max"] / 2
        case "boolean":
            return False
        case "blob":
            return b"PK\0\xff\xfe"
        case "timestamp":
            return dt.datetime(2026, 7, 31, 12, 0, 0, tzinfo=dt.UTC)
        case "list":
            return [example(shape["member"]["shape"], everything=everything)]
        case "map":
            key = example(shape["key"]["shape"], everything=everything)
            return {key: example(shape["value"]["shape"], everything=everything)}
    return {
        member: example(each["shape"], everything=everything)
        for member, each in shape["members"].items()
        if everything or member in shape.get("required", [])
    }


def there_and_back(operation: str, given_parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that we read from a request that botocore has serialized."""
    serializer = create_serializer("rest-json", include_validation=False)
    model = SERVICE.operation_model(operation)
    request = serializer.serialize_to_request(given_parameters, model)
    prepare_request_dict(request, "http://localhost:9001")
    prepared = create_request_object(request).prepare()
    url = urlsplit(prepared.url)
    query = MultiDict(parse_qsl(url.query, keep_blank_values=True))
    headers = CIMultiDict({name: _text(value) for name, value in prepared.headers.items()})
    body = b"" if prepared.body is None else prepared.body
    matched, path = match(prepared.method, url.path, query)
    assert OPERATIONS[operation] == matched
    document = body if matched.blob_body else json.loads(body) if body else None
    return parameters(matched, path, query, headers, document)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


@pytest.mark.parametrize("everything", [True, False], ids=["everything", "required"])
@pytest.mark.parametrize("operation", INPUTS)
def test_parameters_come_back_as_botocore_got_them(operation: str, *, everything: bool) -> None:
    """ARNs, tags in any script and blobs come back unchanged."""
    name = MODEL["operations"][operation]["input"]["shape"]
    expected = example(name, everything=everything)

    params = there_and_back(operation, expected)

    for member, value in expected.items():
        if isinstance(value, dt.datetime):
            expected[member] = value.timestamp()
    assert expected == params


@pytest.mark.parametrize(
    "name",
    ["x" * 140, "x" * 104, FUNCTION_ARN + "x" * 80, "123456789012:function:hello:$LATEST"],
)
def test_long_names_come_back_whole(name: str) -> None:
    """Names of up to 140 characters, and ARNs, are not cut."""
    assert {"FunctionName": name} == there_and_back(
        "GetFunctionConcurrency", {"FunctionName": name}
    )


def test_many_tag_keys_come_back_in_order() -> None:
    """The query has `tagKeys` once for each key."""
    keys = ["one", "two + three", "λ=4"]
    given_parameters = {"Resource": FUNCTION_ARN, "TagKeys": keys}

    assert given_parameters == there_and_back("UntagResource", given_parameters)


# Places of parameters


def test_a_plain_query_has_one_tag_key() -> None:
    """A plain dict can have one value for a name."""
    params = parameters(
        OPERATIONS["UntagResource"], {"Resource": FUNCTION_ARN}, {"tagKeys": "one"}, {}, None
    )

    assert ["one"] == params["TagKeys"]


@pytest.mark.parametrize("name", ["X-Amz-Log-Type", "x-amz-log-type", "X-AMZ-LOG-TYPE"])
@pytest.mark.parametrize("kind", [dict, CIMultiDict])
def test_a_header_is_found_however_it_is_written(kind: Any, name: str) -> None:
    """Header names have no case, in a plain dict as well."""
    params = parameters(
        OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, kind({name: "Tail"}), None
    )

    assert {"FunctionName": "hello", "LogType": "Tail"} == params


def test_a_payload_is_the_body_as_it_came() -> None:
    """A payload is not parsed here."""
    params = parameters(OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, {}, b'"\xff')

    assert b'"\xff' == params["Payload"]


@pytest.mark.parametrize("body", [None, b""])
def test_no_body_is_no_payload(body: bytes | None) -> None:
    """An invocation without a body has no Payload."""
    params = parameters(OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, {}, body)

    assert {"FunctionName": "hello"} == params


def test_unknown_members_are_ignored() -> None:
    """Members that are not in the model are ignored, at every depth."""
    document = function(Newer=1, VpcConfig={"SubnetIds": [], "Newer": {}})

    assert {"SubnetIds": []} == create(document)["VpcConfig"]
    assert "Newer" not in create(document)


def test_a_member_of_the_path_is_not_taken_from_the_body() -> None:
    """Each member has one place: a Name in the body does not override the one in the path."""
    operation = OPERATIONS["UpdateAlias"]
    path = {"FunctionName": "hello", "Name": "live"}

    assert path == parameters(operation, path, {}, {}, {"Name": "other"})


def test_null_is_like_absent() -> None:
    """A null is like an absent member, at every depth."""
    document = function(Description=None, VpcConfig={"SubnetIds": None})

    params = create(document)

    assert "Description" not in params
    assert {} == params["VpcConfig"]


@pytest.mark.parametrize("document", [None, {}])
def test_no_body_is_an_empty_document(document: object) -> None:
    """Without a body all its members are absent."""
    params = parameters(OPERATIONS["PublishVersion"], {"FunctionName": "hello"}, {}, {}, document)

    assert {"FunctionName": "hello"} == params


def test_a_body_without_use_is_ignored() -> None:
    """A GET may have any body."""
    params = parameters(OPERATIONS["GetFunction"], {"FunctionName": "hello"}, {}, {}, ["x"])

    assert {"FunctionName": "hello"} == params


def test_numbers_of_a_query_are_numbers() -> None:
    """MaxItems is an integer, and a layer's version in the path is one too."""
    params = parameters(OPERATIONS["ListFunctions"], {}, {"MaxItems": "50"}, {}, None)
    path = {"LayerName": "tools", "VersionNumber": "12345678901"}

    assert {"MaxItems": 50} == params
    assert (
        12345678901
        == (parameters(OPERATIONS["GetLayerVersion"], path, {}, {}, None)["VersionNumber"])
    )


def test_whole_numbers_may_have_a_point() -> None:
    """1.0 is 1 in JSON."""
    params = create(function(MemorySize=256.0))["MemorySize"]

    assert 256 == params
    assert isinstance(params, int)


# Types


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"MemorySize": "128"}, "STRING_VALUE can not be converted to an Integer"),
        ({"MemorySize": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"MemorySize": 128.5}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": 1 << 31}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": 10**6000}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": float("inf")}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": []}, "Start of list found where not expected."),
        ({"Description": 5}, f"{NUMBER} can not be converted to an String"),
        ({"Description": False}, "FALSE_VALUE can not be converted to an String"),
        ({"Description": {}}, "Start of structure or map found where not expected."),
        ({"Description": "\ud800"}, "Invalid UTF-8 in a String"),
        ({"Runtime": 3}, f"{NUMBER} can not be converted to an String"),
        ({"Publish": "true"}, "STRING_VALUE can not be converted to an Boolean"),
        ({"Publish": 1}, f"{NUMBER} can not be converted to an Boolean"),
        ({"Layers": "x"}, "STRING_VALUE can not be converted to an List"),
        ({"Layers": {}}, "Start of structure or map found where not expected."),
        ({"Layers": [1]}, f"{NUMBER} can not be converted to an String"),
        ({"Tags": "x"}, "STRING_VALUE can not be converted to an Map"),
        ({"Tags": []}, "Start of list found where not expected."),
        ({"Tags": {"a": 1}}, f"{NUMBER} can not be converted to an String"),
        ({"Tags": {"\udfff": "a"}}, "Invalid UTF-8 in a String"),
        ({"Code": "x"}, "STRING_VALUE can not be converted to an Structure"),
        ({"Code": {"ZipFile": 5}}, f"{NUMBER} can not be converted to an Blob"),
        (
            {"Code": {"ZipFile": "UEsF!"}},
            "STRING_VALUE can not be converted to an Blob: Only base64 data is allowed",
        ),
        (
            {"Code": {"ZipFile": "UEsFBg"}},
            "STRING_VALUE can not be converted to an Blob: Incorrect padding",
        ),
    ],
)
def test_a_wrong_type_has_the_message_of_aws(changes: dict[str, Any], expected: str) -> None:
    """A value of the wrong type is the only error of its request."""
    assert expected == unreadable(function(**{"FunctionName": "x!", **changes}))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "Start of list found where not expected."),
        ("x", "STRING_VALUE can not be converted to an Structure"),
        (5, f"{NUMBER} can not be converted to an Structure"),
        (False, "FALSE_VALUE can not be converted to an Structure"),
    ],
)
def test_a_document_is_an_object(document: object, expected: str) -> None:
    """JSON other than an object is no document, also for an operation without required members."""
    assert expected == unreadable(document)
    assert expected == unreadable(document, "PublishVersion")


@pytest.mark.parametrize("weight", ["1", True, float("nan"), 10**400])
def test_a_weight_is_a_number(weight: object) -> None:
    """Strings, booleans and numbers that JSON does not have are refused."""
    document = {"RoutingConfig": {"AdditionalVersionWeights": {"1": weight}}}

    assert "can not be converted to an Double" in unreadable(document, "CreateAlias")


def test_a_time_is_a_number_of_seconds() -> None:
    """A date as text is refused."""
    document = {"StartingPositionTimestamp": "2026-07-31"}

    assert "STRING_VALUE can not be converted to an Date" == unreadable(
        document, "CreateEventSourceMapping"
    )


@pytest.mark.parametrize("text", ["", "x", "1.0", "+1", "١", "9" * 5000, "0x1", " 1"])
def test_a_number_of_a_query_is_digits(text: str) -> None:
    """Texts that Python's int() would accept are refused, as on AWS."""
    with pytest.raises(SerializationFailed) as caught:
        parameters(OPERATIONS["ListFunctions"], {}, {"MaxItems": text}, {}, None)

    assert "STRING_VALUE can not be converted to an Integer" == str(caught.value)


def test_a_version_of_a_layer_is_a_long() -> None:
    """Its message says Long."""
    path = {"LayerName": "tools", "VersionNumber": "latest"}
    with pytest.raises(SerializationFailed) as caught:
        parameters(OPERATIONS["GetLayerVersion"], path, {}, {}, None)

    assert "STRING_VALUE can not be converted to an Long" == str(caught.value)
    assert ("SerializationException", 400) == (caught.value.code, caught.value.status)


def test_a_header_of_bytes_that_are_no_text_is_refused() -> None:
    """They come from aiohttp as surrogates, which cannot be encoded for a log or a file."""
    headers = {"X-Amz-Client-Context": "e30\udcff"}
    with pytest.raises(SerializationFailed):
        parameters(OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, headers, None)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    deadline=None, database=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    operation=st.sampled_from(sorted(INPUTS)),
    data=st.data(),
    query=st.dictionaries(st.sampled_from(["Qualifier", "MaxItems", "tagKeys", "Arn"]), st.text()),
)
def test_any_request_is_parameters_or_an_error(
    operation: str, data: st.DataObject, query: dict[str, str]
) -> None:
    """Any JSON has one of two errors, or parameters that can be used."""
    model_operation = OPERATIONS[operation]
    members = INPUTS[operation].members.items()
    path = {name: "hello" for name, each in members if isinstance(each, Located)}
    names = [name for name, each in members if not isinstance(each, Located)]
    fine = function() if operation == "CreateFunction" else {}
    strategy = st.dictionaries(st.sampled_from(names), anything) if names else st.just({})
    document = None if model_operation.blob_body else {**fine, **data.draw(strategy)}
    try:
        params = parameters(model_operation, path, query, {}, document)
    except (ValidationFailed, SerializationFailed) as exc:
        message = str(exc)
    else:
        message = "fine"

        assert params.keys() <= INPUTS[operation].members.keys()
        # A payload may be empty: it is checked when the function is invoked.
        assert set(INPUTS[operation].required) - {"InvokeArgs"} <= params.keys()

    assert message.encode()
