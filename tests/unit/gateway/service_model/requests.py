"""Documents of requests, and values for every shape of the service model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import Loader

from miniλ.errors import SerializationFailed, ValidationFailed
from miniλ.gateway.service_model.inputs import INPUTS
from miniλ.gateway.service_model.operations import OPERATIONS
from miniλ.gateway.service_model.validate import parameters

if TYPE_CHECKING:
    from collections.abc import Iterator


MODEL = Loader().load_service_model("lambda", "service-2")

FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:hello"
ROLE = "arn:aws:iam::123456789012:role/service-role/hello"
LAYER_ARN = "arn:aws:lambda:eu-west-1:123456789012:layer:tools"
KEY_ARN = "arn:aws:kms:eu-west-1:123456789012:key/1"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:123456789012:failed"

# A value for every shape of the model that has a pattern.
EXAMPLES = {
    "Action": "lambda:InvokeFunction",
    "AdditionalVersion": "7",
    "Alias": "live",
    "Arn": QUEUE_ARN,
    "CapacityProviderArn": "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:x",
    "CodeSigningConfigArn": (
        "arn:aws:lambda:eu-west-1:123456789012:code-signing-config:csc-0123456789abcdefg"
    ),
    "CollectionName": "orders",
    "DatabaseName": "shop",
    "DestinationArn": QUEUE_ARN,
    "DurableExecutionName": "order-1",
    "Endpoint": "broker-1.example.com:9092",
    "EnvironmentVariableName": "STAGE",
    "EventSourceToken": "token",
    "FileSystemArn": (
        "arn:aws:elasticfilesystem:eu-west-1:123456789012:access-point/fsap-0123456789abcdef0"
    ),
    "FunctionName": FUNCTION_ARN + ":live",
    "FunctionRuntimeArn": "arn:aws:lambda:eu-west-1:123456789012:runtime/python",
    "FunctionUrlFunctionName": "hello",
    "FunctionUrlQualifier": "live",
    "Handler": "app.handler",
    "Header": "x-custom",
    "KMSKeyArn": KEY_ARN,
    "LayerNameOrArn": LAYER_ARN,
    "LayerPermissionAllowedAction": "lambda:GetLayerVersion",
    "LayerPermissionAllowedPrincipal": "123456789012",
    "LayerVersionArn": LAYER_ARN + ":3",
    "LicenseInfo": "MIT",
    "LocalMountPath": "/mnt/data",
    "LogGroup": "/aws/lambda/hello",
    "MasterRegion": "eu-west-1",
    "Method": "GET",
    "NamespacedFunctionName": FUNCTION_ARN,
    "NamespacedStatementId": "statement.1",
    "NumericLatestPublishedOrAliasQualifier": "$LATEST",
    "OrganizationId": "o-0123456789",
    "Origin": "https://example.com",
    "Pattern": '{"body":[{"exists":true}]}',
    "Principal": "s3.amazonaws.com",
    "PrincipalOrgID": "o-0123456789",
    "ProvisionedPollerGroupName": "pollers",
    "Qualifier": "7",
    "Queue": "orders",
    "ResourceArn": QUEUE_ARN,
    "RoleArn": ROLE,
    "RuntimeVersionArn": "arn:aws:lambda:eu-west-1::runtime:0123456789abcdef",
    "S3Bucket": "bucket",
    "S3Key": "code/hello.zip",
    "S3ObjectVersion": "v1",
    "SchemaRegistryUri": "https://example.com",
    "SecurityGroupId": "sg-1",
    "SourceOwner": "123456789012",
    "StatementId": "statement-1",
    "SubnetId": "subnet-1",
    "TagKey": "Größe/価格 1",
    "TagValue": "naïve λ = 価格_1",
    "TaggableResource": FUNCTION_ARN,
    "TenantId": "tenant 1",
    "Topic": "orders",
    "UnqualifiedFunctionName": FUNCTION_ARN,
    "URI": "https://example.com/*",
    "UUIDString": "8f5ab0a2-0000-4000-8000-000000000001",
    "VersionWithLatestPublished": "$LATEST",
}


def function(**changes: Any) -> dict[str, Any]:
    """Return the document of a valid CreateFunction, with these changes."""
    code = {"ZipFile": "UEsFBg=="}
    return {"FunctionName": "hello", "Role": ROLE, "Code": code, **changes}


def create(document: object) -> dict[str, Any]:
    """Return the parameters of a CreateFunction with this document."""
    return parameters(OPERATIONS["CreateFunction"], {}, {}, {}, document)


def refused(document: object) -> str:
    """Return the one error of a CreateFunction with this document, without the count."""
    with pytest.raises(ValidationFailed) as caught:
        create(document)
    message = str(caught.value)
    assert message.startswith("1 validation error detected: ")
    return message.removeprefix("1 validation error detected: ")


def unreadable(document: object, operation: str = "CreateFunction") -> str:
    """Return the error for a document that cannot be read."""
    with pytest.raises(SerializationFailed) as caught:
        parameters(OPERATIONS[operation], {}, {}, {}, document)
    return str(caught.value)


def walk(name: str) -> Iterator[str]:
    """Yield the names of a shape of the model and of all shapes within it."""
    yield name
    shape = MODEL["shapes"][name]
    inner = [shape[key] for key in ("member", "key", "value") if key in shape]
    for each in [*shape.get("members", {}).values(), *inner]:
        yield from walk(each["shape"])


def patterns() -> list[str]:
    """Return all patterns of the inputs."""
    names = {
        name
        for operation in INPUTS
        for name in walk(MODEL["operations"][operation]["input"]["shape"])
    }
    return sorted({MODEL["shapes"][name].get("pattern", "") for name in names} - {""})
