"""Inputs: the parameters of each operation, and the place of each in a request.

Rule 1: a member without a place is in the JSON document of the body, by its own name. A `uri` or
`query` member has its own name too, unless another is there.

Rule 2: members are in the order of the model, in which a message lists errors.

These are the 60 operations that miniλ offers. `operations` knows the others (durable executions,
capacity providers, code signing, resource policies) by path only.

Source: the service model of 2015-03-31 that AWS's clients have (botocore 1.44.8).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from miniλ.gateway.service_model import shapes
from miniλ.gateway.service_model.shapes import (
    Blob,
    Boolean,
    Integer,
    ListOf,
    Shape,
    String,
    Timestamp,
)

Place: TypeAlias = Literal["uri", "querystring", "header", "payload"]


class Located(msgspec.Struct, frozen=True, eq=False):
    """A member outside the JSON document: its place, and its name there ("" for its own)."""

    place: Place
    shape: Shape
    name: str = ""


class Input(msgspec.Struct, frozen=True, eq=False):
    """The input of an operation: its members by name, and the names of the required ones."""

    members: dict[str, Shape | Located]
    required: tuple[str, ...] = ()


def uri(shape: Shape) -> Located:
    """Return a member in a segment of the path."""
    return Located("uri", shape)


def query(shape: Shape, name: str = "") -> Located:
    """Return a member in the query string."""
    return Located("querystring", shape, name)


def header(name: str, shape: Shape) -> Located:
    """Return a member in a header."""
    return Located("header", shape, name)


def payload(shape: Shape) -> Located:
    """Return a member that is the whole body, as bytes."""
    return Located("payload", shape)


# Members that several operations share.

Members: TypeAlias = dict[str, Shape | Located]

_FUNCTION: Members = {"FunctionName": uri(shapes.FunctionName)}
_ANY_FUNCTION: Members = {"FunctionName": uri(shapes.NamespacedFunctionName)}
_ANY_VERSION: Members = {
    **_ANY_FUNCTION,
    "Qualifier": query(shapes.NumericLatestPublishedOrAliasQualifier),
}
_VERSION: Members = {**_FUNCTION, "Qualifier": query(shapes.Qualifier)}
_ALIAS: Members = {**_FUNCTION, "Name": uri(shapes.Alias)}
_URL: Members = {
    "FunctionName": uri(shapes.FunctionUrlFunctionName),
    "Qualifier": query(shapes.FunctionUrlQualifier),
}
_UNQUALIFIED: Members = {"FunctionName": uri(shapes.UnqualifiedFunctionName)}
_LAYER: Members = {"LayerName": uri(shapes.LayerNameOrArn)}
_LAYER_VERSION: Members = {**_LAYER, "VersionNumber": uri(shapes.LayerVersionNumber)}
_FOR: Members = {
    "CompatibleArchitecture": query(shapes.Architecture),
    "CompatibleRuntime": query(shapes.Runtime),
}
_MAPPING: Members = {"UUID": uri(shapes.UUIDString)}
_RESOURCE: Members = {"Resource": uri(shapes.TaggableResource)}
# Some lists come in pages of up to 10,000, others in pages of up to 50.
_PAGES: Members = {"Marker": query(String()), "MaxItems": query(Integer(1, 10000))}
_SMALL_PAGES: Members = {"Marker": query(String()), "MaxItems": query(Integer(1, 50))}

_URL_CONFIG: Members = {
    "AuthType": shapes.FunctionUrlAuthType,
    "Cors": shapes.Cors,
    "InvokeMode": shapes.InvokeMode,
}
_EVENT_INVOKE_CONFIG: Members = {
    "MaximumRetryAttempts": Integer(0, 2),
    "MaximumEventAgeInSeconds": Integer(60, 21600),
    "DestinationConfig": shapes.DestinationConfig,
}

INPUTS: dict[str, Input] = {
    # Functions
    "CreateFunction": Input(
        {
            "FunctionName": shapes.FunctionName,
            "Runtime": shapes.FunctionRuntime,
            "Role": shapes.RoleArn,
            "Handler": shapes.Handler,
            "Code": shapes.FunctionCode,
            "Description": shapes.Description,
            "Timeout": shapes.Timeout,
            "MemorySize": shapes.MemorySize,
            "Publish": Boolean(),
            "PublishTo": shapes.FunctionVersionLatestPublished,
            "VpcConfig": shapes.VpcConfig,
            "PackageType": shapes.PackageType,
            "DeadLetterConfig": shapes.DeadLetterConfig,
            "Environment": shapes.Environment,
            "KMSKeyArn": shapes.KMSKeyArn,
            "TracingConfig": shapes.TracingConfig,
            "Tags": shapes.Tags,
            "Layers": shapes.LayerList,
            "FileSystemConfigs": shapes.FileSystemConfigList,
            "CodeSigningConfigArn": shapes.CodeSigningConfigArn,
            "ImageConfig": shapes.ImageConfig,
            "Architectures": shapes.ArchitecturesList,
            "EphemeralStorage": shapes.EphemeralStorage,
            "SnapStart": shapes.SnapStart,
            "LoggingConfig": shapes.LoggingConfig,
            "TenancyConfig": shapes.TenancyConfig,
            "CapacityProviderConfig": shapes.CapacityProviderConfig,
            "DurableConfig": shapes.DurableConfig,
            "RuntimeConfig": shapes.FunctionRuntimeConfig,
            "AcceleratorConfig": shapes.AcceleratorConfig,
        },
        required=("FunctionName", "Role", "Code"),
    ),
    "GetFunction": Input(_ANY_VERSION, required=("FunctionName",)),
    "GetFunctionConfiguration": Input(_ANY_VERSION, required=("FunctionName",)),
    "UpdateFunctionCode": Input(
        {
            **_FUNCTION,
            "ZipFile": Blob(),
            "S3Bucket": shapes.S3Bucket,
            "S3Key": shapes.S3Key,
            "S3ObjectVersion": shapes.S3ObjectVersion,
            "S3ObjectStorageMode": shapes.S3ObjectStorageMode,
            "ImageUri": String(),
            "Architectures": shapes.ArchitecturesList,
            "Publish": Boolean(),
            "PublishTo": shapes.FunctionVersionLatestPublished,
            "DryRun": Boolean(),
            "RevisionId": String(),
            "SourceKMSKeyArn": shapes.KMSKeyArn,
        },
        required=("FunctionName",),
    ),
    "UpdateFunctionConfiguration": Input(
        {
            **_FUNCTION,
            "Role": shapes.RoleArn,
            "Handler": shapes.Handler,
            "Description": shapes.Description,
            "Timeout": shapes.Timeout,
            "MemorySize": shapes.MemorySize,
            "VpcConfig": shapes.VpcConfig,
            "Environment": shapes.Environment,
            "Runtime": shapes.FunctionRuntime,
            "DeadLetterConfig": shapes.DeadLetterConfig,
            "KMSKeyArn": shapes.KMSKeyArn,
            "TracingConfig": shapes.TracingConfig,
            "RevisionId": String(),
            "Layers": shapes.LayerList,
            "FileSystemConfigs": shapes.FileSystemConfigList,
            "ImageConfig": shapes.ImageConfig,
            "EphemeralStorage": shapes.EphemeralStorage,
            "SnapStart": shapes.SnapStart,
            "LoggingConfig": shapes.LoggingConfig,
            "CapacityProviderConfig": shapes.CapacityProviderConfig,
            "DurableConfig": shapes.DurableConfig,
            "RuntimeConfig": shapes.FunctionRuntimeConfig,
            "AcceleratorConfig": shapes.AcceleratorConfig,
        },
        required=("FunctionName",),
    ),
    "DeleteFunction": Input(_ANY_VERSION, required=("FunctionName",)),
    "ListFunctions": Input(
        {
            "MasterRegion": query(shapes.MasterRegion),
            "FunctionVersion": query(shapes.FunctionVersion),
            **_PAGES,
        }
    ),
    "GetFunctionCodeSigningConfig": Input(_ANY_FUNCTION, required=("FunctionName",)),
    "GetAccountSettings": Input({}),
    # Invocations
    "Invoke": Input(
        {
            **_ANY_FUNCTION,
            "InvocationType": header("X-Amz-Invocation-Type", shapes.InvocationType),
            "LogType": header("X-Amz-Log-Type", shapes.LogType),
            "ClientContext": header("X-Amz-Client-Context", String()),
            "DurableExecutionName": header(
                "X-Amz-Durable-Execution-Name", shapes.DurableExecutionName
            ),
            "Payload": payload(Blob()),
            "Qualifier": query(shapes.NumericLatestPublishedOrAliasQualifier),
            "TenantId": header("X-Amz-Tenant-Id", shapes.TenantId),
        },
        required=("FunctionName",),
    ),
    "InvokeWithResponseStream": Input(
        {
            **_ANY_FUNCTION,
            "LogType": header("X-Amz-Log-Type", shapes.LogType),
            "ClientContext": header("X-Amz-Client-Context", String()),
            "Qualifier": query(shapes.NumericLatestPublishedOrAliasQualifier),
            "Payload": payload(Blob()),
            "TenantId": header("X-Amz-Tenant-Id", shapes.TenantId),
            "InvocationType": header(
                "X-Amz-Invocation-Type", shapes.ResponseStreamingInvocationType
            ),
        },
        required=("FunctionName",),
    ),
    "InvokeAsync": Input(
        {**_ANY_FUNCTION, "InvokeArgs": payload(Blob())},
        required=("FunctionName", "InvokeArgs"),
    ),
    # Versions and aliases
    "PublishVersion": Input(
        {
            **_FUNCTION,
            "CodeSha256": String(),
            "Description": shapes.Description,
            "RevisionId": String(),
            "PublishTo": shapes.FunctionVersionLatestPublished,
        },
        required=("FunctionName",),
    ),
    "ListVersionsByFunction": Input({**_ANY_FUNCTION, **_PAGES}, required=("FunctionName",)),
    "CreateAlias": Input(
        {
            **_FUNCTION,
            "Name": shapes.Alias,
            "FunctionVersion": shapes.VersionWithLatestPublished,
            "Description": shapes.Description,
            "RoutingConfig": shapes.AliasRoutingConfiguration,
        },
        required=("FunctionName", "Name", "FunctionVersion"),
    ),
    "GetAlias": Input(_ALIAS, required=("FunctionName", "Name")),
    "UpdateAlias": Input(
        {
            **_ALIAS,
            "FunctionVersion": shapes.VersionWithLatestPublished,
            "Description": shapes.Description,
            "RoutingConfig": shapes.AliasRoutingConfiguration,
            "RevisionId": String(),
        },
        required=("FunctionName", "Name"),
    ),
    "DeleteAlias": Input(_ALIAS, required=("FunctionName", "Name")),
    "ListAliases": Input(
        {
            **_FUNCTION,
            "FunctionVersion": query(shapes.VersionWithLatestPublished),
            **_PAGES,
        },
        required=("FunctionName",),
    ),
    # Concurrency and runtime management
    "GetFunctionConcurrency": Input(_FUNCTION, required=("FunctionName",)),
    "PutFunctionConcurrency": Input(
        {**_FUNCTION, "ReservedConcurrentExecutions": Integer(0)},
        required=("FunctionName", "ReservedConcurrentExecutions"),
    ),
    "DeleteFunctionConcurrency": Input(_FUNCTION, required=("FunctionName",)),
    "PutProvisionedConcurrencyConfig": Input(
        {**_VERSION, "ProvisionedConcurrentExecutions": Integer(1)},
        required=("FunctionName", "Qualifier", "ProvisionedConcurrentExecutions"),
    ),
    "GetProvisionedConcurrencyConfig": Input(_VERSION, required=("FunctionName", "Qualifier")),
    "DeleteProvisionedConcurrencyConfig": Input(_VERSION, required=("FunctionName", "Qualifier")),
    "ListProvisionedConcurrencyConfigs": Input(
        {**_FUNCTION, **_SMALL_PAGES}, required=("FunctionName",)
    ),
    "GetFunctionRecursionConfig": Input(_UNQUALIFIED, required=("FunctionName",)),
    "PutFunctionRecursionConfig": Input(
        {**_UNQUALIFIED, "RecursiveLoop": shapes.RecursiveLoop},
        required=("FunctionName", "RecursiveLoop"),
    ),
    "GetRuntimeManagementConfig": Input(_ANY_VERSION, required=("FunctionName",)),
    "PutRuntimeManagementConfig": Input(
        {
            **_ANY_VERSION,
            "UpdateRuntimeOn": shapes.UpdateRuntimeOn,
            "RuntimeVersionArn": shapes.RuntimeVersionArn,
        },
        required=("FunctionName", "UpdateRuntimeOn"),
    ),
    # Asynchronous invocations
    "PutFunctionEventInvokeConfig": Input(
        {**_ANY_VERSION, **_EVENT_INVOKE_CONFIG}, required=("FunctionName",)
    ),
    "UpdateFunctionEventInvokeConfig": Input(
        {**_ANY_VERSION, **_EVENT_INVOKE_CONFIG}, required=("FunctionName",)
    ),
    "GetFunctionEventInvokeConfig": Input(_ANY_VERSION, required=("FunctionName",)),
    "DeleteFunctionEventInvokeConfig": Input(_ANY_VERSION, required=("FunctionName",)),
    "ListFunctionEventInvokeConfigs": Input(
        {**_ANY_FUNCTION, **_SMALL_PAGES}, required=("FunctionName",)
    ),
    # Function URLs
    "CreateFunctionUrlConfig": Input(
        {**_URL, **_URL_CONFIG}, required=("FunctionName", "AuthType")
    ),
    "GetFunctionUrlConfig": Input(_URL, required=("FunctionName",)),
    "UpdateFunctionUrlConfig": Input({**_URL, **_URL_CONFIG}, required=("FunctionName",)),
    "DeleteFunctionUrlConfig": Input(_URL, required=("FunctionName",)),
    "ListFunctionUrlConfigs": Input(
        {"FunctionName": uri(shapes.FunctionUrlFunctionName), **_SMALL_PAGES},
        required=("FunctionName",),
    ),
    # Layers
    "PublishLayerVersion": Input(
        {
            **_LAYER,
            "Description": shapes.Description,
            "Content": shapes.LayerVersionContentInput,
            "CompatibleArchitectures": ListOf(shapes.Architecture, 0, 2),
            "CompatibleRuntimes": ListOf(shapes.Runtime, 0, 15),
            "LicenseInfo": String(0, 512, r".*"),
        },
        required=("LayerName", "Content"),
    ),
    "GetLayerVersion": Input(_LAYER_VERSION, required=("LayerName", "VersionNumber")),
    "GetLayerVersionByArn": Input({"Arn": query(shapes.LayerVersionArn)}, required=("Arn",)),
    "ListLayerVersions": Input({**_FOR, **_LAYER, **_SMALL_PAGES}, required=("LayerName",)),
    "ListLayers": Input({**_FOR, **_SMALL_PAGES}),
    "DeleteLayerVersion": Input(_LAYER_VERSION, required=("LayerName", "VersionNumber")),
    "AddLayerVersionPermission": Input(
        {
            **_LAYER_VERSION,
            "StatementId": shapes.StatementId,
            "Action": String(0, 22, r"lambda:GetLayerVersion"),
            "Principal": String(0, 10000, r"\d{12}|\*|arn:(aws[a-zA-Z-]*):iam::\d{12}:root"),
            "OrganizationId": shapes.OrganizationId,
            "RevisionId": query(String()),
        },
        required=("LayerName", "VersionNumber", "StatementId", "Action", "Principal"),
    ),
    "GetLayerVersionPolicy": Input(_LAYER_VERSION, required=("LayerName", "VersionNumber")),
    "RemoveLayerVersionPermission": Input(
        {
            **_LAYER_VERSION,
            "StatementId": uri(shapes.StatementId),
            "RevisionId": query(String()),
        },
        required=("LayerName", "VersionNumber", "StatementId"),
    ),
    # Permissions and tags
    "AddPermission": Input(
        {
            **_ANY_FUNCTION,
            "StatementId": shapes.StatementId,
            "Action": String(0, 10000, r"(lambda:[*]|lambda:[a-zA-Z]+|[*])"),
            "Principal": String(0, 2048, r"[^\s]+"),
            "SourceArn": shapes.Arn,
            "FunctionUrlAuthType": shapes.FunctionUrlAuthType,
            "InvokedViaFunctionUrl": Boolean(),
            "SourceAccount": String(0, 12, r"\d{12}"),
            "EventSourceToken": String(0, 256, r"[a-zA-Z0-9._\-]+"),
            "Qualifier": query(shapes.NumericLatestPublishedOrAliasQualifier),
            "RevisionId": String(),
            "PrincipalOrgID": String(12, 34, r"o-[a-z0-9]{10,32}"),
        },
        required=("FunctionName", "StatementId", "Action", "Principal"),
    ),
    "GetPolicy": Input(_ANY_VERSION, required=("FunctionName",)),
    "RemovePermission": Input(
        {
            **_ANY_FUNCTION,
            "StatementId": uri(shapes.NamespacedStatementId),
            "Qualifier": query(shapes.NumericLatestPublishedOrAliasQualifier),
            "RevisionId": query(String()),
        },
        required=("FunctionName", "StatementId"),
    ),
    "TagResource": Input({**_RESOURCE, "Tags": shapes.Tags}, required=("Resource", "Tags")),
    "UntagResource": Input(
        {**_RESOURCE, "TagKeys": query(ListOf(shapes.TagKey), "tagKeys")},
        required=("Resource", "TagKeys"),
    ),
    "ListTags": Input(_RESOURCE, required=("Resource",)),
    # Event source mappings
    "CreateEventSourceMapping": Input(
        {
            "EventSourceArn": shapes.Arn,
            "FunctionName": shapes.NamespacedFunctionName,
            "Enabled": Boolean(),
            "BatchSize": Integer(1, 10000),
            "FilterCriteria": shapes.FilterCriteria,
            "KMSKeyArn": shapes.KMSKeyArn,
            "MetricsConfig": shapes.EventSourceMappingMetricsConfig,
            "LoggingConfig": shapes.EventSourceMappingLoggingConfig,
            "ScalingConfig": shapes.ScalingConfig,
            "MaximumBatchingWindowInSeconds": Integer(0, 300),
            "ParallelizationFactor": Integer(1, 10),
            "StartingPosition": shapes.EventSourcePosition,
            "StartingPositionTimestamp": Timestamp(),
            "DestinationConfig": shapes.DestinationConfig,
            "MaximumRecordAgeInSeconds": Integer(-1, 604800),
            "BisectBatchOnFunctionError": Boolean(),
            "MaximumRetryAttempts": Integer(-1, 10000),
            "Tags": shapes.Tags,
            "TumblingWindowInSeconds": Integer(0, 900),
            "Topics": shapes.Topics,
            "Queues": shapes.Queues,
            "SourceAccessConfigurations": shapes.SourceAccessConfigurations,
            "SelfManagedEventSource": shapes.SelfManagedEventSource,
            "FunctionResponseTypes": shapes.FunctionResponseTypeList,
            "AmazonManagedKafkaEventSourceConfig": shapes.AmazonManagedKafkaEventSourceConfig,
            "SelfManagedKafkaEventSourceConfig": shapes.SelfManagedKafkaEventSourceConfig,
            "DocumentDBEventSourceConfig": shapes.DocumentDBEventSourceConfig,
            "ProvisionedPollerConfig": shapes.ProvisionedPollerConfig,
        },
        required=("FunctionName",),
    ),
    "GetEventSourceMapping": Input(_MAPPING, required=("UUID",)),
    "UpdateEventSourceMapping": Input(
        {
            **_MAPPING,
            "FunctionName": shapes.NamespacedFunctionName,
            "Enabled": Boolean(),
            "BatchSize": Integer(1, 10000),
            "FilterCriteria": shapes.FilterCriteria,
            "KMSKeyArn": shapes.KMSKeyArn,
            "MetricsConfig": shapes.EventSourceMappingMetricsConfig,
            "LoggingConfig": shapes.EventSourceMappingLoggingConfig,
            "ScalingConfig": shapes.ScalingConfig,
            "MaximumBatchingWindowInSeconds": Integer(0, 300),
            "ParallelizationFactor": Integer(1, 10),
            "DestinationConfig": shapes.DestinationConfig,
            "MaximumRecordAgeInSeconds": Integer(-1, 604800),
            "BisectBatchOnFunctionError": Boolean(),
            "MaximumRetryAttempts": Integer(-1, 10000),
            "TumblingWindowInSeconds": Integer(0, 900),
            "SourceAccessConfigurations": shapes.SourceAccessConfigurations,
            "FunctionResponseTypes": shapes.FunctionResponseTypeList,
            "AmazonManagedKafkaEventSourceConfig": shapes.AmazonManagedKafkaEventSourceConfig,
            "SelfManagedKafkaEventSourceConfig": shapes.SelfManagedKafkaEventSourceConfig,
            "DocumentDBEventSourceConfig": shapes.DocumentDBEventSourceConfig,
            "ProvisionedPollerConfig": shapes.ProvisionedPollerConfig,
        },
        required=("UUID",),
    ),
    "DeleteEventSourceMapping": Input(_MAPPING, required=("UUID",)),
    "ListEventSourceMappings": Input(
        {
            "EventSourceArn": query(shapes.Arn),
            "FunctionName": query(shapes.NamespacedFunctionName),
            **_PAGES,
        }
    ),
}
