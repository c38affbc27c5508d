"""Clients of the field: the AWS CLI, curl, Terraform's provider, SAM, the Serverless fork.

Terraform and SAM are replayed: the calls of their sources, in that order, and the members that they
read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import ECHO, REGION, ROLE, RUNTIME, Server, archive, updated
from tests.api.refusals import MISSING, refused
from tests.api.test_functions import new, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

ARN = f"arn:aws:lambda:{REGION}:000000000000:function"
GREET = "def handler(event, context):\n    return f\"Hello, {event['name']}\"\n"
NPM_SECONDS = 45


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a client: test keys, our address, a home of its own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": server.url,
        "AWS_PAGER": "",
    }


def ran(command: list[str], environment: dict[str, str], directory: Path, code: int = 0) -> str:
    """Run a program that must end with this code; return what it printed."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert code == done.returncode, done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture
def aws(environment: dict[str, str], tmp_path: Path) -> Callable[..., Any]:
    """Return the AWS CLI as a function: its answer as JSON, or its stderr."""
    program = Path(sys.executable).with_name("aws")
    if not program.exists():
        pytest.skip("aws is not on PATH")

    def run(*arguments: str, code: int = 0) -> Any:
        printed = ran([str(program), *arguments], environment, tmp_path, code)
        return printed if code or not printed else json.loads(printed)

    return run


def test_the_aws_cli_deploys_and_invokes(
    aws: Callable[..., Any], client: BaseClient, tmp_path: Path
) -> None:
    """From a .zip to an answer, as in the tutorials, with its own waiter between."""
    (tmp_path / "hello.zip").write_bytes(archive(app=GREET))
    (tmp_path / "echo.zip").write_bytes(archive(app=ECHO))
    created = aws(
        *("lambda", "create-function", "--function-name", "cli", "--runtime", RUNTIME),
        *("--role", ROLE, "--handler", "app.handler", "--zip-file", "fileb://hello.zip"),
        *("--environment", "Variables={COLOR=blue}", "--tags", "team=a"),
    )
    aws("lambda", "wait", "function-active-v2", "--function-name", "cli")
    invoked = aws(
        *("lambda", "invoke", "--function-name", "cli", "--log-type", "Tail"),
        *("--payload", '{"name": "Ada"}', "answer.json"),
    )
    published = aws(
        *("lambda", "update-function-code", "--function-name", "cli", "--publish"),
        *("--zip-file", "fileb://echo.zip"),
    )
    listed = aws("lambda", "list-functions", "--max-items", "1")
    complaint = aws("lambda", "get-function", "--function-name", "nowhere", code=255)
    aws("lambda", "delete-function", "--function-name", "cli")

    assert ("Pending", {"Variables": {"COLOR": "blue"}}) == (
        created["State"],
        created["Environment"],
    )
    assert {"StatusCode", "ExecutedVersion", "LogResult"} == invoked.keys()
    assert "Hello, Ada" == json.loads((tmp_path / "answer.json").read_text())
    assert ("1", f"{ARN}:cli:1") == (published["Version"], published["FunctionArn"])
    assert ["cli"] == [function["FunctionName"] for function in listed["Functions"]]
    assert (
        "An error occurred (ResourceNotFoundException) when calling the GetFunction operation: "
        f"Function not found: {ARN}:nowhere"
    ) in complaint
    assert 404 == refused(client.get_function, FunctionName="cli")[0]


def test_curl_is_enough(
    server: Server, client: BaseClient, environment: dict[str, str], tmp_path: Path
) -> None:
    """Without a signature or a content type, and with the Expect of a large body."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not on PATH")
    client.create_function(**new("curled", Code={"ZipFile": archive(app=ECHO)}))
    settled(client, "curled")
    path = f"{server.url}/2015-03-31/functions/curled"
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"large": "x" * 2_000_000}))

    def curl(*arguments: str) -> str:
        return ran(["curl", "-sS", *arguments], environment, tmp_path)

    small = curl(f"{path}/invocations", "-d", '{"name": "Ada"}')
    whole = curl(f"{path}/invocations", "--data-binary", f"@{large}")
    status = curl("-o", "body", "-w", "%{http_code} %header{x-amzn-errortype}", f"{path}/nowhere")
    configuration = json.loads(curl(f"{path}/configuration"))
    changed = json.loads(curl("-X", "PUT", f"{path}/configuration", "-d", '{"Timeout": 7}'))
    gone = curl("-X", "DELETE", "-w", "%{http_code}", path)

    assert {"name": "Ada"} == json.loads(small)
    assert {"large": "x" * 2_000_000} == json.loads(whole)
    assert "404 UnknownOperationException" == status
    assert "curled" == configuration["FunctionName"]
    assert 7 == changed["Timeout"]
    assert "204" == gone


# Terraform, aws_lambda_function


def read(client: BaseClient, name: str) -> dict[str, Any]:
    """Read as the provider does after each change; return the configuration."""
    function = client.get_function(FunctionName=name)
    assert {"Code", "Configuration"} <= function.keys()
    assert function["Code"]["RepositoryType"] == "S3"
    assert function["Code"]["Location"].startswith("http")
    versions = client.list_versions_by_function(FunctionName=name, MaxItems=10000)["Versions"]
    signing = client.get_function_code_signing_config(FunctionName=name)
    assert name == signing["FunctionName"]
    assert not signing.get("CodeSigningConfigArn")
    # The provider takes the last one for qualified_arn and version.
    return {**function["Configuration"], "latest": versions[-1]["FunctionArn"]}


def test_terraform_creates_changes_and_deletes(client: BaseClient) -> None:
    """Apply, apply with other arguments, destroy: each answer is the one the provider waits for."""
    name = "formed"
    client.create_function(
        **new(
            name,
            Publish=True,
            Timeout=3,
            MemorySize=128,
            Architectures=["x86_64"],
            EphemeralStorage={"Size": 512},
            LoggingConfig={"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"},
            PackageType="Zip",
            TracingConfig={"Mode": "PassThrough"},
            Tags={"team": "a"},
            Environment={"Variables": {"COLOR": "blue"}},
        )
    )
    assert "Active" == settled(client, name)["State"]
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    created = read(client, name)
    reserved = client.get_function(FunctionName=name)["Concurrency"]

    assert f"{ARN}:{name}:1" == created["latest"]
    assert {"ReservedConcurrentExecutions": 1} == reserved
    assert {"team": "a"} == client.list_tags(Resource=f"{ARN}:{name}")["Tags"]

    client.update_function_configuration(
        FunctionName=name,
        Description="changed",
        Environment={"Variables": {}},
        DeadLetterConfig={"TargetArn": ""},
        KMSKeyArn="",
        Layers=[],
        FileSystemConfigs=[],
        VpcConfig={"SubnetIds": [], "SecurityGroupIds": [], "Ipv6AllowedForDualStack": False},
        SnapStart={"ApplyOn": "None"},
        Timeout=4,
    )
    updated(client, name)
    client.update_function_code(FunctionName=name, ZipFile=archive(app=GREET))
    updated(client, name)
    client.delete_function_concurrency(FunctionName=name)
    published = client.publish_version(FunctionName=name)
    version = client.get_function_configuration(FunctionName=name, Qualifier=published["Version"])
    changed = read(client, name)

    assert ("2", "Active", "Successful") == (
        version["Version"],
        version["State"],
        version["LastUpdateStatus"],
    )
    assert f"{ARN}:{name}:2" == changed["latest"]
    assert ("changed", 4) == (changed["Description"], changed["Timeout"])
    assert set() == {"Environment", "DeadLetterConfig", "KMSKeyArn", "Layers"} & changed.keys()
    assert "Concurrency" not in client.get_function(FunctionName=name)

    client.delete_function(FunctionName=name)
    assert (404, MISSING, f"Function not found: {ARN}:{name}") == refused(
        client.get_function, FunctionName=name
    )


# SAM


def test_sam_invokes_by_arn(client: BaseClient, make_function: Callable[..., str]) -> None:
    """`sam remote invoke ARN`: the configuration, a URL if there is one, then the invocation."""
    name = make_function(GREET)
    arn = f"{ARN}:{name}"
    configuration = client.get_function_configuration(FunctionName=arn)
    missing = refused(client.get_function_url_config, FunctionName=arn)
    answer = client.invoke(FunctionName=arn, Payload=b'{"name": "Ada"}', LogType="Tail")

    assert name == configuration["FunctionName"]
    assert (404, MISSING) == missing[:2]
    assert "Hello, Ada" == json.load(answer["Payload"])
    assert answer["LogResult"]


# The Serverless Framework's fork


@pytest.fixture
def osls(tmp_path: Path) -> Iterator[str]:
    """Return the program osls, installed for this test and removed with it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not on PATH")
    directory = tmp_path / "osls"
    directory.mkdir()
    command = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline", "osls@4.3.1"]
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=NPM_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        shutil.rmtree(directory)
        pytest.skip("npm could not install osls")
    yield str(directory / "node_modules" / ".bin" / "osls")
    shutil.rmtree(directory)


@pytest.mark.timeout(150)
def test_osls_deploys_a_function(
    osls: str, client: BaseClient, environment: dict[str, str], tmp_path: Path
) -> None:
    """`deploy function` changes code and memory of an existing function; `invoke` runs it."""
    service = tmp_path / "service"
    service.mkdir()
    (service / "app.py").write_text(GREET)
    (service / "serverless.yml").write_text(
        'service: shop\nframeworkVersion: "*"\nprovider:\n  name: aws\n'
        f"  runtime: {RUNTIME}\n  region: {REGION}\n"
        "functions:\n  hello:\n    handler: app.handler\n    memorySize: 256\n"
    )
    client.create_function(**new("shop-dev-hello"))
    settled(client, "shop-dev-hello")
    quiet = {**environment, "SLS_TRACKING_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off"}
    ran([osls, "deploy", "function", "-f", "hello"], quiet, service)
    after = updated(client, "shop-dev-hello")
    output = ran([osls, "invoke", "-f", "hello", "-d", '{"name": "Ada"}'], quiet, service)
    client.delete_function(FunctionName="shop-dev-hello")

    assert (256, "Successful") == (after["MemorySize"], after["LastUpdateStatus"])
    assert "Hello, Ada" == json.loads(output)
