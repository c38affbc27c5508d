r"""Shapes of Lambda's service model: the type, bounds and pattern of each value in a request.

Rule 1: a shape is data. `constraints` and `validate` give it its meaning; `inputs` says which
operation takes which shape, and where.

Rule 2: names and numbers are the model's. Where the model is ahead of the documented quotas, the
quotas count: `QUOTAS` lists all such shapes.

Rule 3: patterns are the model's too, in Java's syntax, and messages show them as they stand here. A
pattern must match the whole value.

Source: the service model of 2015-03-31 that AWS's clients have (botocore 1.44.8).
tests/unit/gateway/service_model/test_shapes.py compares every shape of `inputs` with it, in both
directions.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from miniλ.model import EPHEMERAL_MB, MEMORY_MB, TIMEOUT_SECONDS

# The notation. Shapes compare by identity: they are keys of caches (`constraints`), and hashing a
# tree of shapes by value would cost more than the caches save.


class String(msgspec.Struct, frozen=True, eq=False):
    """A string of `minimum` to `maximum` characters that matches `pattern` as a whole."""

    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None


class OneOf(msgspec.Struct, frozen=True, eq=False):
    """An enum: one of these strings. An `open` one accepts others, for its operation to refuse."""

    values: tuple[str, ...]
    open: bool = False


class Integer(msgspec.Struct, frozen=True, eq=False):
    """An integer of `minimum` to `maximum`, of 32 bits or, for the model's long, of 64."""

    minimum: int | None = None
    maximum: int | None = None
    bits: int = 32


class Double(msgspec.Struct, frozen=True, eq=False):
    """A floating-point number of `minimum` to `maximum`."""

    minimum: float | None = None
    maximum: float | None = None


class Boolean(msgspec.Struct, frozen=True, eq=False):
    """True or false."""


class Timestamp(msgspec.Struct, frozen=True, eq=False):
    """A point in time; in JSON seconds since 1970."""


class Blob(msgspec.Struct, frozen=True, eq=False):
    """Bytes; in JSON base64."""


class ListOf(msgspec.Struct, frozen=True, eq=False):
    """A list of `minimum` to `maximum` members."""

    member: Shape
    minimum: int | None = None
    maximum: int | None = None


class MapOf(msgspec.Struct, frozen=True, eq=False):
    """A map of `minimum` to `maximum` keys. Messages do not show the value of a `secret` one."""

    key: String | OneOf
    value: Shape
    minimum: int | None = None
    maximum: int | None = None
    secret: bool = False


class Structure(msgspec.Struct, frozen=True, eq=False):
    """A structure: its members by name, and the names of the required ones."""

    members: dict[str, Shape]
    required: tuple[str, ...] = ()


Shape: TypeAlias = (
    String | OneOf | Integer | Double | Boolean | Timestamp | Blob | ListOf | MapOf | Structure
)


# Shapes whose range in the model is wider than the documented quota; see `miniλ.model`.
QUOTAS: dict[str, tuple[int, int]] = {
    "MemorySize": MEMORY_MB,
    "Timeout": TIMEOUT_SECONDS,
    "EphemeralStorageSize": EPHEMERAL_MB,
}


# Functions, versions, aliases

_REGION = r"(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}"
# Names of functions, versions, aliases and layers alike: a character of one, and a whole one.
_CHARACTER = r"[a-zA-Z0-9-_]"
_NAME = _CHARACTER + "+"
_LATEST_OR_ALIAS = r"(\$LATEST|" + _NAME + ")"
# The beginning of a function's ARN, each part of which may be left out before its name.
_ARN_OF = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?(" + _REGION + r":)?(\d{12}:)?(function:)?"

FunctionName = String(1, 140, f"{_ARN_OF}({_NAME})(:{_LATEST_OR_ALIAS})?")
UnqualifiedFunctionName = String(1, 140, f"{_ARN_OF}({_NAME})")
NamespacedFunctionName = String(
    1, 256, _ARN_OF + r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|" + _NAME + "))?"
)
FunctionUrlFunctionName = String(
    1, 140, _ARN_OF + "(" + _CHARACTER + r"{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?"
)
Qualifier = String(1, 128, r"(|[a-zA-Z0-9$_-]+)")
NumericLatestPublishedOrAliasQualifier = String(1, 128, r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")
FunctionUrlQualifier = String(1, 128, r"((?!^\d+$)^[0-9a-zA-Z-_]+$)")
Alias = String(1, 128, f"(?!^[0-9]+$)({_NAME})")
VersionWithLatestPublished = String(1, 1024, r"(\$LATEST(\.PUBLISHED)?|[0-9]+)")
FunctionVersion = OneOf(("ALL",))
FunctionVersionLatestPublished = OneOf(("LATEST_PUBLISHED",))
MasterRegion = String(1, 50, r"ALL|" + _REGION)
Description = String(0, 256)
AliasRoutingConfiguration = Structure(
    {"AdditionalVersionWeights": MapOf(String(1, 1024, r"[0-9]+"), Double(0.0, 1.0))}
)


# Code and configuration

Runtime = OneOf(
    (
        *("nodejs", "nodejs4.3", "nodejs6.10", "nodejs8.10", "nodejs10.x", "nodejs12.x"),
        *("nodejs14.x", "nodejs16.x", "nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x"),
        *("java8", "java8.al2", "java11", "java17", "java21", "java25"),
        *("python2.7", "python3.6", "python3.7", "python3.8", "python3.9", "python3.10"),
        *("python3.11", "python3.12", "python3.13", "python3.14"),
        *("dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1"),
        *("dotnet6", "dotnet8", "dotnet10", "nodejs4.3-edge", "go1.x"),
        *("ruby2.5", "ruby2.7", "ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0"),
        *("provided", "provided.al2", "provided.al2023", "nodejs26.x", "python3.15"),
        *("java8.al2023", "java11.al2023", "java17.al2023", "custom"),
    )
)
FunctionRuntime = OneOf(Runtime.values, open=True)
Architecture = OneOf(("x86_64", "arm64"))
ArchitecturesList = ListOf(Architecture, 1, 1)
MemorySize = Integer(*QUOTAS["MemorySize"])
Timeout = Integer(*QUOTAS["Timeout"])
EphemeralStorage = Structure({"Size": Integer(*QUOTAS["EphemeralStorageSize"])}, ("Size",))
Handler = String(0, 128, r"[^\s]+")
RoleArn = String(0, 10000, r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
KMSKeyArn = String(0, 10000, r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()")
ResourceArn = String(0, 10000, r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()")
CodeSigningConfigArn = String(
    0,
    200,
    r"arn:(aws[a-zA-Z-]*)?:lambda:" + _REGION + r":\d{12}:code-signing-config:csc-[a-z0-9]{17}",
)
S3Bucket = String(3, 63, r"[0-9A-Za-z\.\-_]*(?<!\.)")
S3Key = String(1, 1024, r".*")
S3ObjectVersion = String(1, 1024, r".*")
S3ObjectStorageMode = OneOf(("COPY", "REFERENCE"))
FunctionCode = Structure(
    {
        "ZipFile": Blob(),
        "S3Bucket": S3Bucket,
        "S3Key": S3Key,
        "S3ObjectVersion": S3ObjectVersion,
        "S3ObjectStorageMode": S3ObjectStorageMode,
        "ImageUri": String(),
        "SourceKMSKeyArn": KMSKeyArn,
    }
)
PackageType = OneOf(("Zip", "Image"))
Environment = Structure(
    {"Variables": MapOf(String(pattern=r"[a-zA-Z]([a-zA-Z0-9_])+"), String(), secret=True)}
)
VpcConfig = Structure(
    {
        "SubnetIds": ListOf(String(0, 1024, r"subnet-[0-9a-z]*"), 0, 16),
        "SecurityGroupIds": ListOf(String(0, 1024, r"sg-[0-9a-zA-Z]*"), 0, 5),
        "Ipv6AllowedForDualStack": Boolean(),
    }
)
DeadLetterConfig = Structure({"TargetArn": ResourceArn})
TracingConfig = Structure({"Mode": OneOf(("Active", "PassThrough"))})
FileSystemConfig = Structure(
    {
        "Arn": String(
            0,
            256,
            r"arn:aws[a-zA-Z-]*:elasticfilesystem:"
            + _REGION
            + r":\d{12}:access-point/fsap-[a-f0-9]{17}$|^arn:aws[-a-z]*:s3files:[0-9a-z-:]+"
            r":file-system/fs-[0-9a-f]{17,40}/access-point/fsap-[0-9a-f]{17,40}",
        ),
        "LocalMountPath": String(0, 160, r"/mnt/[a-zA-Z0-9-_.]+"),
        "S3FilesConfig": Structure({"DirectS3Read": OneOf(("ENABLED", "DISABLED", "AUTO"))}),
    },
    ("Arn", "LocalMountPath"),
)
FileSystemConfigList = ListOf(FileSystemConfig, 0, 1)
ImageConfig = Structure(
    {
        "EntryPoint": ListOf(String(), 0, 1500),
        "Command": ListOf(String(), 0, 1500),
        "WorkingDirectory": String(0, 1000),
    }
)
SnapStart = Structure({"ApplyOn": OneOf(("PublishedVersions", "None"))})
LoggingConfig = Structure(
    {
        "LogFormat": OneOf(("JSON", "Text")),
        "ApplicationLogLevel": OneOf(("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")),
        "SystemLogLevel": OneOf(("DEBUG", "INFO", "WARN")),
        "LogGroup": String(1, 512, r"[\.\-_/#A-Za-z0-9]+"),
    }
)
TenancyConfig = Structure({"TenantIsolationMode": OneOf(("PER_TENANT",))}, ("TenantIsolationMode",))
CapacityProviderConfig = Structure(
    {
        "LambdaManagedInstancesCapacityProviderConfig": Structure(
            {
                "CapacityProviderArn": String(
                    1,
                    140,
                    r"arn:aws[a-zA-Z-]*:lambda:" + _REGION + r":\d{12}:capacity-provider:" + _NAME,
                ),
                "PerExecutionEnvironmentMaxConcurrency": Integer(1, 1600),
                "ExecutionEnvironmentMemoryGiBPerVCpu": Double(2, 8),
            },
            ("CapacityProviderArn",),
        )
    },
    ("LambdaManagedInstancesCapacityProviderConfig",),
)
DurableConfig = Structure(
    {
        "KMSKeyArn": KMSKeyArn,
        "RetentionPeriodInDays": Integer(1, 90),
        "ExecutionTimeout": Integer(1, 31622400),
    }
)
FunctionRuntimeConfig = Structure(
    {
        "RuntimeArn": String(48, 2048, r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:runtime/.+"),
        "RuntimeAlias": String(1, 128),
    },
    ("RuntimeArn", "RuntimeAlias"),
)
AcceleratorConfig = Structure({"AcceleratorMemorySize": Integer()}, ("AcceleratorMemorySize",))
UpdateRuntimeOn = OneOf(("Auto", "Manual", "FunctionUpdate"))
RuntimeVersionArn = String(
    26,
    2048,
    r"((arn:(aws[a-zA-Z-]*):lambda:"
    + _REGION
    + r"::runtime:.+)|(arn:(aws[a-zA-Z-]*):lambda:"
    + _REGION
    + r":\d{12}:runtime/[A-Za-z0-9_.-]{1,128}/version/[A-Za-z0-9_.-]{1,128}))",
)
RecursiveLoop = OneOf(("Allow", "Terminate"))


# Invocations

InvocationType = OneOf(("Event", "RequestResponse", "DryRun"))
ResponseStreamingInvocationType = OneOf(("RequestResponse", "DryRun"))
LogType = OneOf(("None", "Tail"))
DurableExecutionName = String(1, 64, _NAME)
TenantId = String(1, 256, r"[a-zA-Z0-9\._:\/=+\-@ ]+")


# Layers

LayerNameOrArn = String(
    1,
    2048,
    r"(arn:(aws[a-zA-Z-]*)?:lambda:"
    + _REGION
    + r":\d{12}:layer:"
    + f"{_CHARACTER}{{1,140}}|{_CHARACTER}{{1,140}})",
)
LayerVersionArn = String(
    1,
    2048,
    r"((arn:(aws[a-zA-Z-]*)?:lambda:"
    + _REGION
    + r":\d{12}:layer:"
    + f"{_NAME}:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:{_NAME}))",
)
LayerVersionNumber = Integer(bits=64)
LayerList = ListOf(LayerVersionArn)
LayerVersionContentInput = Structure(
    {
        "S3Bucket": S3Bucket,
        "S3Key": S3Key,
        "S3ObjectVersion": S3ObjectVersion,
        "S3ObjectStorageMode": S3ObjectStorageMode,
        "ZipFile": Blob(),
    }
)


# Tags, policies, URLs

TaggableResource = String(
    1,
    10000,
    r"arn:(aws[a-zA-Z-]*):lambda:"
    + _REGION
    + r":\d{12}:(function:"
    + f"{_NAME}(:{_LATEST_OR_ALIAS})?"
    r"|code-signing-config:csc-[a-z0-9]{17}"
    r"|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(capacity-provider|network-connector):" + _CHARACTER + "{1,64})",
)
TagKey = String(1, 128, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")
Tags = MapOf(TagKey, String(0, 256, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"))
StatementId = String(1, 100, f"({_NAME})")
NamespacedStatementId = String(1, 100, r"([a-zA-Z0-9-_.]+)")
_ARN = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:(" + _REGION + r")?:(\d{12})?:(.*)"
Arn = String(0, 10000, _ARN)
OrganizationId = String(0, 34, r"o-[a-z0-9]{10,32}")
FunctionUrlAuthType = OneOf(("NONE", "AWS_IAM"))
InvokeMode = OneOf(("BUFFERED", "RESPONSE_STREAM"))
HeadersList = ListOf(String(0, 1024, r".*"), 0, 100)
Cors = Structure(
    {
        "AllowCredentials": Boolean(),
        "AllowHeaders": HeadersList,
        "AllowMethods": ListOf(String(0, 6, r".*"), 0, 6),
        "AllowOrigins": ListOf(String(1, 253, r".*"), 0, 100),
        "ExposeHeaders": HeadersList,
        "MaxAge": Integer(0, 86400),
    }
)


# Destinations and event sources

DestinationArn = String(0, 350, r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|" + _ARN)
DestinationConfig = Structure(
    {
        "OnSuccess": Structure({"Destination": DestinationArn}),
        "OnFailure": Structure({"Destination": DestinationArn}),
    }
)
UUIDString = String(36, 36)
FilterCriteria = Structure({"Filters": ListOf(Structure({"Pattern": String(0, 4096, r"[\s\S]*")}))})
EventSourceMappingMetricsConfig = Structure(
    {"Metrics": ListOf(OneOf(("EventCount", "ErrorCount", "KafkaMetrics")), 0, 3)}
)
EventSourceMappingLoggingConfig = Structure({"SystemLogLevel": OneOf(("DEBUG", "INFO", "WARN"))})
EventSourcePosition = OneOf(("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"))
ScalingConfig = Structure({"MaximumConcurrency": Integer(2, 1000)})
Topics = ListOf(String(1, 249, r"[^.]([a-zA-Z0-9\-_.]+)"), 1, 1)
Queues = ListOf(String(1, 1000, r"[\s\S]*"), 1, 1)
URI = String(1, 200, r"[ a-zA-Z0-9-\/*:_+=.@-]*")
SourceAccessConfigurations = ListOf(
    Structure(
        {
            "Type": OneOf(
                (
                    "BASIC_AUTH",
                    "VPC_SUBNET",
                    "VPC_SECURITY_GROUP",
                    "SASL_SCRAM_512_AUTH",
                    "SASL_SCRAM_256_AUTH",
                    "VIRTUAL_HOST",
                    "CLIENT_CERTIFICATE_TLS_AUTH",
                    "SERVER_ROOT_CA_CERTIFICATE",
                    "OAUTHBEARER_AUTH",
                    "OAUTHBEARER_SCOPE",
                    "OAUTHBEARER_AUDIENCE",
                    "OAUTHBEARER_LOGICAL_CLUSTER",
                    "OAUTHBEARER_IDENTITY_POOL",
                    "IAM_AUTH",
                    "IAM_OAUTHBEARER_AUTH",
                )
            ),
            "URI": URI,
        }
    ),
    0,
    23,
)
Endpoint = String(
    1,
    300,
    r"(([a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])\.)*"
    r"([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9\-]*[A-Za-z0-9]):[0-9]{1,5}",
)
SelfManagedEventSource = Structure(
    {"Endpoints": MapOf(OneOf(("KAFKA_BOOTSTRAP_SERVERS",)), ListOf(Endpoint, 1, 10), 1, 2)}
)
FunctionResponseTypeList = ListOf(OneOf(("ReportBatchItemFailures",)), 0, 1)
KafkaSchemaRegistryConfig = Structure(
    {
        "SchemaRegistryURI": String(1, 10000, r"[a-zA-Z0-9-\/*:_+=.@-]*"),
        "EventRecordFormat": OneOf(("JSON", "SOURCE")),
        "AccessConfigs": ListOf(
            Structure(
                {
                    "Type": OneOf(
                        (
                            "BASIC_AUTH",
                            "CLIENT_CERTIFICATE_TLS_AUTH",
                            "SERVER_ROOT_CA_CERTIFICATE",
                            "OAUTHBEARER_AUTH",
                        )
                    ),
                    "URI": Arn,
                }
            )
        ),
        "SchemaValidationConfigs": ListOf(Structure({"Attribute": OneOf(("KEY", "VALUE"))})),
    }
)
AmazonManagedKafkaEventSourceConfig = Structure(
    {"ConsumerGroupId": URI, "SchemaRegistryConfig": KafkaSchemaRegistryConfig}
)
SelfManagedKafkaEventSourceConfig = Structure(
    {
        "ConsumerGroupId": URI,
        "SchemaRegistryConfig": KafkaSchemaRegistryConfig,
        "ConsumptionMode": OneOf(("Stream", "Queue")),
    }
)
DocumentDBEventSourceConfig = Structure(
    {
        "DatabaseName": String(1, 63, r"[^ /\.$\x22]*"),
        "CollectionName": String(1, 57, r"(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)"),
        "FullDocument": OneOf(("UpdateLookup", "Default")),
    }
)
ProvisionedPollerConfig = Structure(
    {
        "MinimumPollers": Integer(1, 200),
        "MaximumPollers": Integer(1, 10000),
        "PollerGroupName": String(0, 128, _CHARACTER + "*"),
    }
)
