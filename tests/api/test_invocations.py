"""Invocations as AWS's clients have them: payloads, answers, contexts, events and dry runs."""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.api.conftest import ECHO, REGION, Listener, Server, archive, serving
from tests.api.refusals import INVALID, MISSING, refused
from tests.api.test_functions import new, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

ARN = f"arn:aws:lambda:{REGION}:000000000000:function"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
# Does what the event says, else tells what it sees.
ABLE = r"""
import os
import socket
import sys
import time
count = 0
def handler(event, context):
    global count
    count += 1
    match event:
        case {"raise": text}:
            raise ValueError(text)
        case {"exit": status}:
            sys.exit(status)
        case {"sleep": seconds}:
            time.sleep(seconds)
        case {"print": text}:
            print(text)
        case {"return": size}:
            return "x" * size
        case {"none": _}:
            return None
        case {"call": [port, text]}:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(f"{text} {context.aws_request_id}\n".encode())
                connection.recv(1)
    client = context.client_context
    return {
        "event": event,
        "count": count,
        "request_id": context.aws_request_id,
        "trace_id": os.environ["_X_AMZN_TRACE_ID"],
        "arn": context.invoked_function_arn,
        "client": client and [client.custom, client.env, client.client.app_title],
    }
"""


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def post(server: Server, path: str, body: bytes = b"", **headers: str) -> Answer:
    """POST without a client's help; headers as X_Amz_Log_Type."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, named)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    connection.close()
    return answer


def path_of(name: str, query: str = "") -> str:
    """Return the path that invokes a function."""
    return f"/2015-03-31/functions/{name}/invocations{query}"


def error_of(answer: Answer) -> tuple[int, str, dict[str, str]]:
    """Return status, code and document of an error."""
    return answer.status, answer.headers["x-amzn-ErrorType"], json.loads(answer.body)


@pytest.fixture(scope="module")
def able(client: BaseClient) -> Iterator[str]:
    """Return a function that does what its event says."""
    client.create_function(**new("able", Code={"ZipFile": archive(app=ABLE)}, Timeout=5))
    client.get_waiter("function_active_v2").wait(
        FunctionName="able", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    yield "able"
    client.delete_function(FunctionName="able")


def until(look: Callable[[], Any]) -> Any:
    """Look until there is something, for at most 30 seconds; return it."""
    ending = time.monotonic() + 30
    pause = threading.Event()
    while not (value := look()):
        assert time.monotonic() < ending, "nothing came"
        pause.wait(0.02)
    return value


# What comes back


def test_an_answer_has_the_headers_of_aws(server: Server, able: str) -> None:
    """The payload as the function gave it, the version that ran, ids and a trace."""
    answer = post(server, path_of(able), b'{"a": 1}')

    assert 200 == answer.status
    assert "application/json" == answer.headers["Content-Type"]
    assert "$LATEST" == answer.headers["X-Amz-Executed-Version"]
    assert "0" == answer.headers["x-amzn-Remapped-Content-Length"]
    assert str(len(answer.body)) == answer.headers["Content-Length"]
    assert "X-Amz-Function-Error" not in answer.headers
    assert "X-Amz-Log-Result" not in answer.headers
    assert UUID.fullmatch(answer.headers["x-amzn-RequestId"])
    trace = r"(?i)Root=1-[0-9a-f]{8}-[0-9a-f]{24};Sampled=0"
    assert re.fullmatch(trace, answer.headers["X-Amzn-Trace-Id"])
    assert {"a": 1} == json.loads(answer.body)["event"]


def test_a_payload_comes_and_goes_as_it_is(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Any JSON is an event; nothing is an empty object; None is null; text stays text."""
    name = make_function(ECHO)
    for body, expected in (
        (b'"\xce\xbb"', '"\\u03bb"'),
        (b"[1, 2.5, null, true]", "[1, 2.5, null, true]"),
        (b"17", "17"),
        (b"null", "null"),
        (b"", "{}"),
        (b' {"a" : {}} ', '{"a": {}}'),
    ):
        answer = post(server, path_of(name), body)

        assert (200, expected) == (answer.status, answer.body.decode()), body


def test_nothing_returned_is_null(server: Server, able: str) -> None:
    """A handler without a return answers null."""
    assert b"null" == post(server, path_of(able), b'{"none": 1}').body


def test_the_request_id_is_one_everywhere(server: Server, able: str) -> None:
    """In the header, the context, START, END and REPORT, and in CloudWatch Logs."""
    answer = post(server, path_of(able), b'{"print": "hello"}', X_Amz_Log_Type="Tail")
    request_id = answer.headers["x-amzn-RequestId"]
    tail = base64.b64decode(answer.headers["X-Amz-Log-Result"]).decode()
    logs = server.client("logs")
    events = until(
        lambda: [
            event["message"]
            for event in logs.filter_log_events(
                logGroupName=f"/aws/lambda/{able}", filterPattern=f'"{request_id}"'
            )["events"]
        ]
    )
    streams = logs.describe_log_streams(logGroupName=f"/aws/lambda/{able}")["logStreams"]
    logs.close()

    assert request_id == json.loads(answer.body)["request_id"]
    start, printed, end, report = tail.splitlines()
    assert f"START RequestId: {request_id} Version: $LATEST" == start
    assert "hello" == printed
    assert f"END RequestId: {request_id}" == end
    fields = (
        rf"REPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?"
    )
    assert re.fullmatch(fields, report)
    assert [f"{start}\n", f"{end}\n", f"{report}\n"] == events
    pattern = r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}"
    assert all(re.fullmatch(pattern, stream["logStreamName"]) for stream in streams)


def test_the_tail_is_the_last_4_kb_of_the_log(client: BaseClient, able: str) -> None:
    """Of a long log the end is returned: bytes, and not characters, are counted."""
    answer = client.invoke(
        FunctionName=able, LogType="Tail", Payload=json.dumps({"print": "λ" * 9000})
    )
    tail = base64.b64decode(answer["LogResult"])

    assert 4096 == len(tail)
    assert "λ\nEND RequestId: " in tail.decode(errors="ignore")
    assert tail.decode(errors="ignore").splitlines()[-1].startswith("REPORT RequestId: ")


FAILURES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"raise": "no"},
        {"errorMessage": "no", "errorType": "ValueError", "requestId": "ID", "stackTrace": ...},
    ),
    (
        {"exit": 0},
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": "RequestId: ID Error: Runtime exited without providing a reason",
        },
    ),
    (
        {"exit": 127},
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": "RequestId: ID Error: Runtime exited with error: exit status 127",
        },
    ),
    (
        {"return": 6_291_555},
        {
            "errorMessage": "Response payload size exceeded maximum allowed payload size "
            "(6291556 bytes).",
            "errorType": "Function.ResponseSizeTooLarge",
        },
    ),
]


@pytest.mark.parametrize(("event", "expected"), FAILURES)
def test_a_failure_of_the_function_is_an_answer(
    server: Server, able: str, event: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Status 200, Unhandled, and a document as AWS has it; the next invocation runs."""
    answer = post(server, path_of(able), json.dumps(event).encode())
    failure = json.loads(answer.body.decode().replace(answer.headers["x-amzn-RequestId"], "ID"))

    assert (200, "Unhandled") == (answer.status, answer.headers["X-Amz-Function-Error"])
    assert "$LATEST" == answer.headers["X-Amz-Executed-Version"]
    assert "application/json" == answer.headers["Content-Type"]
    assert expected.keys() == failure.keys()
    assert expected == {**failure, **{key: ... for key in expected if expected[key] is ...}}
    assert "X-Amz-Function-Error" not in post(server, path_of(able)).headers


def test_a_timeout_is_told_as_aws_tells_it(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """After the timeout, in today's words; the log has the status."""
    name = make_function(ABLE, Timeout=1)
    answer = post(server, path_of(name), b'{"sleep": 30}', X_Amz_Log_Type="Tail")
    request_id = answer.headers["x-amzn-RequestId"]
    tail = base64.b64decode(answer.headers["X-Amz-Log-Result"]).decode()

    assert (200, "Unhandled") == (answer.status, answer.headers["X-Amz-Function-Error"])
    expected = (
        '{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: '
        f'{request_id} Error: Task timed out after 1.00 seconds"}}'
    )
    assert expected == answer.body.decode()
    assert tail.splitlines()[-1].endswith("\tStatus: timeout")


def test_a_module_that_cannot_be_imported_is_told(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The init phase fails inside the invocation, without a request id."""
    name = make_function("import nothing_like_it\n")
    answer = client.invoke(FunctionName=name)
    failure = json.load(answer["Payload"])

    assert "Unhandled" == answer["FunctionError"]
    assert "Runtime.ImportModuleError" == failure["errorType"]
    message = "Unable to import module 'app': No module named 'nothing_like_it'"
    assert message == failure["errorMessage"]
    assert ("", []) == (failure["requestId"], failure["stackTrace"])


# What goes in


def test_a_client_context_reaches_the_function(client: BaseClient, able: str) -> None:
    """As the mobile SDKs have it: custom, env and client."""
    content = {"custom": {"a": 1}, "env": {"b": "2"}, "client": {"app_title": "t"}}
    encoded = base64.b64encode(json.dumps(content).encode()).decode()
    answer = client.invoke(FunctionName=able, ClientContext=encoded)

    assert [{"a": 1}, {"b": "2"}, "t"] == json.load(answer["Payload"])["client"]


@pytest.mark.parametrize(
    "context",
    [
        "no base64",
        base64.b64encode(b"no json").decode(),
        base64.b64encode(b"[1]").decode(),
        base64.b64encode(b"\xff").decode(),
        base64.b64encode(json.dumps({"custom": "x" * 2700}).encode()).decode(),
    ],
    ids=["base64", "json", "object", "text", "size"],
)
def test_a_client_context_that_is_none_is_refused(
    client: BaseClient, make_function: Callable[..., str], context: str
) -> None:
    """It is base64 of a JSON object, of at most 3,583 characters; nothing runs otherwise."""
    name = make_function(ABLE)
    status, code, message = refused(client.invoke, FunctionName=name, ClientContext=context)

    assert (400, "InvalidRequestContentException") == (status, code)
    assert message.startswith("Client context must be ")
    assert 1 == json.load(client.invoke(FunctionName=name)["Payload"])["count"]


def test_a_trace_goes_on(server: Server, able: str) -> None:
    """A trace id that comes with a request is the function's and comes back; else there is one."""
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    followed = post(server, path_of(able), X_Amzn_Trace_Id=trace)
    made = post(server, path_of(able))

    for answer in (followed, made):
        seen, lineage, mark = json.loads(answer.body)["trace_id"].partition(";Lineage=")
        assert lineage
        assert re.fullmatch("1:[0-9a-f]{8}:1", mark)
        assert seen.lower() == answer.headers["X-Amzn-Trace-Id"]
    assert trace.lower() == followed.headers["X-Amzn-Trace-Id"]


def test_the_arn_is_the_one_that_was_asked_for(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """With the qualifier of the request, if any: in the path, encoded or not, or in the query."""
    name = make_function(ABLE, Publish=True)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    encoded = f"{ARN}:{name}:live".replace(":", "%3A")
    for path, qualifier, version in (
        (path_of(name), "", "$LATEST"),
        (path_of(f"{ARN}:{name}"), "", "$LATEST"),
        (path_of(name, "?Qualifier=$LATEST"), ":$LATEST", "$LATEST"),
        (path_of(name, "?Qualifier=1"), ":1", "1"),
        (path_of(f"{name}:1"), ":1", "1"),
        (path_of(encoded), ":live", "1"),
        (path_of(f"000000000000:function:{name}:live"), ":live", "1"),
    ):
        answer = post(server, path)

        assert f"{ARN}:{name}{qualifier}" == json.loads(answer.body)["arn"], path
        assert version == answer.headers["X-Amz-Executed-Version"], path


def test_what_cannot_be_invoked_is_not_found(client: BaseClient, able: str) -> None:
    """In the words that AWS has, with the qualifier that is missing."""
    missing = f"Function not found: {ARN}"
    regions = "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
    qualifiers = (
        "The derived qualifier from the function name does not match the specified qualifier."
    )

    for request, expected in (
        ({"FunctionName": "nowhere"}, (404, MISSING, f"{missing}:nowhere:$LATEST")),
        ({"FunctionName": "nowhere:live"}, (404, MISSING, f"{missing}:nowhere:live")),
        ({"FunctionName": able, "Qualifier": "7"}, (404, MISSING, f"{missing}:{able}:7")),
        ({"FunctionName": f"{able}:1", "Qualifier": "2"}, (400, INVALID, qualifiers)),
        (
            {"FunctionName": f"arn:aws:lambda:eu-west-1:000000000000:function:{able}"},
            (404, MISSING, regions),
        ),
    ):
        for kind in ("RequestResponse", "Event", "DryRun"):
            assert expected == refused(client.invoke, InvocationType=kind, **request)


def test_an_event_that_is_no_json_is_refused(server: Server, able: str) -> None:
    """Whatever the type of the invocation; the document has a Type and a lower-case message."""
    for body in (b"{", b"\xff", b"{'a': 1}", b"[" * 100_000):
        for kind in ("RequestResponse", "Event", "DryRun"):
            answer = post(server, path_of(able), body, X_Amz_Invocation_Type=kind)
            status, code, document = error_of(answer)

            assert (400, "InvalidRequestContentException") == (status, code)
            assert {"Type", "message"} == document.keys()
            assert "User" == document["Type"]
            assert document["message"].startswith("Could not parse request body into json: ")


def test_what_is_said_of_an_invocation_is_checked(server: Server, able: str) -> None:
    """An unknown type is refused in the words of the service model's constraints."""
    for header, member, values in (
        ("X_Amz_Invocation_Type", "invocationType", "[Event, RequestResponse, DryRun]"),
        ("X_Amz_Log_Type", "logType", "[None, Tail]"),
    ):
        answer = post(server, path_of(able), **{header: "Other"})

        message = (
            f"1 validation error detected: Value 'Other' at '{member}' failed to satisfy "
            f"constraint: Member must satisfy enum value set: {values}"
        )
        assert (400, "ValidationException", {"message": message}) == error_of(answer)


def test_an_event_is_at_most_so_large(server: Server, able: str) -> None:
    """6 MB, and 1 MB for an event: one byte more is 413, and the largest is taken."""
    largest = b'{"a":"' + b"x" * (6 * 1024 * 1024 - 8) + b'"}'
    asynchronous = b'{"a":"' + b"x" * (1024 * 1024 - 8) + b'"}'
    fits = post(server, path_of(able), asynchronous, X_Amz_Invocation_Type="Event")
    tight = post(server, path_of(able), largest, X_Amz_Invocation_Type="DryRun")
    above = post(server, path_of(able), largest + b" ")
    status, _, document = error_of(
        post(server, path_of(able), asynchronous + b" ", X_Amz_Invocation_Type="Event")
    )

    assert [202, 204] == [fits.status, tight.status]
    assert 413 == above.status
    assert (
        "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
        == json.loads(above.body)["message"]
    )
    assert 413 == status
    assert (
        "1048577 byte payload is too large for the Event invocation type (limit 1048576 bytes)"
        == document["message"]
    )


# Without an answer


def test_an_event_is_accepted_and_run(
    server: Server, client: BaseClient, able: str, listener: Listener
) -> None:
    """202 and no body; the function runs with the id of the answer, and its log has it."""
    event = json.dumps({"call": [listener.port, "running"]}).encode()
    answer = post(server, path_of(able), event, X_Amz_Invocation_Type="Event")
    request_id = answer.headers["x-amzn-RequestId"]
    heard = listener.heard()
    logs = server.client("logs")
    report = until(
        lambda: logs.filter_log_events(
            logGroupName=f"/aws/lambda/{able}", filterPattern=f'REPORT "{request_id}"'
        )["events"]
    )
    logs.close()

    assert (202, b"") == (answer.status, answer.body)
    assert "X-Amz-Executed-Version" not in answer.headers
    assert f"running {request_id}" == heard
    assert report[0]["message"].startswith(f"REPORT RequestId: {request_id}\t")


def test_the_api_of_2014_accepts_events(
    server: Server, client: BaseClient, able: str, listener: Listener
) -> None:
    """invoke-async, with a slash at its end or without, with arguments or none."""
    event = json.dumps({"call": [listener.port, "of 2014"]}).encode()
    for slash in ("", "/"):
        answer = post(server, f"/2014-11-13/functions/{able}/invoke-async{slash}", event)

        assert 202 == answer.status
        assert {"Status": 202} == json.loads(answer.body)
        assert f"of 2014 {answer.headers['x-amzn-RequestId']}" == listener.heard()
    assert 202 == client.invoke_async(FunctionName=able, InvokeArgs=b"")["Status"]
    missing = f"Function not found: {ARN}:nowhere:$LATEST"
    assert (404, MISSING, missing) == refused(
        client.invoke_async, FunctionName="nowhere", InvokeArgs=b"{}"
    )


def test_a_dry_run_runs_nothing(client: BaseClient, make_function: Callable[..., str]) -> None:
    """204 without a body, a version or a log; the function does not run."""
    name = make_function(ABLE)
    answer = client.invoke(
        FunctionName=name, InvocationType="DryRun", LogType="Tail", Payload=b"{}"
    )
    after = json.load(client.invoke(FunctionName=name)["Payload"])["count"]

    assert (204, b"") == (answer["StatusCode"], answer["Payload"].read())
    assert set() == {"ExecutedVersion", "LogResult", "FunctionError"} & answer.keys()
    assert 1 == after


# As the emulator of AWS


def test_the_emulators_path_is_the_one_function_that_there_is() -> None:
    """What is served alone answers to the name `function`, until there is a choice."""
    with serving() as running:
        client = running.client()
        path = path_of("function")
        before = post(running, path, b"1")
        client.create_function(**new("only"))
        settled(client, "only")
        alone = post(running, path, b'{"a": 1}')
        event = post(running, path, b"1", X_Amz_Invocation_Type="Event")
        client.create_function(**new("other"))
        settled(client, "other")
        two = post(running, path, b"1")
        client.create_function(**new("function"))
        settled(client, "function")
        named = post(running, path, b"2")
        client.close()

    missing = {"Type": "User", "Message": f"Function not found: {ARN}:function:$LATEST"}
    assert (404, MISSING, missing) == error_of(before) == error_of(two)
    assert (200, {"a": 1}) == (alone.status, json.loads(alone.body))
    assert 202 == event.status
    assert (200, b"2") == (named.status, named.body)


# Who leaves


def test_who_leaves_changes_nothing(
    server: Server, client: BaseClient, make_function: Callable[..., str], listener: Listener
) -> None:
    """A client that hangs up while its function runs: that runs to its end, once."""
    name = make_function(ABLE, Timeout=30)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    leaving = http.client.HTTPConnection("127.0.0.1", server.port)
    leaving.request("POST", path_of(name), json.dumps({"call": [listener.port, "on"]}))
    connection, _ = listener.accept()
    leaving.close()
    busy = post(server, path_of(name))
    connection.close()
    # As soon as it is free the worker runs the next: the second that it has ever been given.
    after = until(lambda: _unless_throttled(post(server, path_of(name))))

    assert 429 == busy.status
    assert 2 == json.loads(after.body)["count"]


def _unless_throttled(answer: Answer) -> Answer | None:
    return None if answer.status == 429 else answer
