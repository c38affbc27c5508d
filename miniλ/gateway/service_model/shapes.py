r"""This module is the shapes: what a value in a request may be, as Lambda's service model says.

Rule 1: a shape is data. `validate` knows what a shape means, `inputs` says which operation takes
which of them, where.

Rule 2: names and numbers are the model's. Where it has moved ahead of the documented quotas, the
quotas hold: `QUOTAS` lists all such shapes.

Rule 3: patterns are the model's too, that is Java's, and are shown to clients as they stand here.
A pattern is held against the whole value.

Source: the service model of 2015-03-31 that AWS's clients have (botocore 1.44.8). A test compares
every shape of `inputs` with it, in both directions.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from miniλ.model import EPHEMERAL_MB, MEMORY_MB, TIMEOUT_SECONDS

# The notation. A shape is itself and equal to nothing else: what was worked out of it is found
# by it (`validate`), and hashing a tree of them would cost more than that saves.


class Text(msgspec.Struct, frozen=True, eq=False):
    """A string of `minimum` to `maximum` characters that the whole `pattern` fits."""

    minimum: int | None = None
    maximum: int | None = None
    pattern: str | None = None


class OneOf(msgspec.Struct, frozen=True, eq=False):
    """One of these strings. An `open` one lets others pass: its operation has words for them."""

    values: tuple[str, ...]
    open: bool = False


class Whole(msgspec.Struct, frozen=True, eq=False):
    """A whole number of `minimum` to `maximum`, of 32 bits or of 64."""

    minimum: int | None = None
    maximum: int | None = None
    bits: int = 32


class Number(msgspec.Struct, frozen=True, eq=False):
    """A number of `minimum` to `maximum`."""

    minimum: float | None = None
    maximum: float | None = None


class Flag(msgspec.Struct, frozen=True, eq=False):
    """True or false."""


class Time(msgspec.Struct, frozen=True, eq=False):
    """A point in time; in JSON the seconds since 1970."""


class Blob(msgspec.Struct, frozen=True, eq=False):
    """Bytes; in JSON they are base64."""


class ListOf(msgspec.Struct, frozen=True, eq=False):
    """A list of `minimum` to `maximum` members."""

    member: Shape
    minimum: int | None = None
    maximum: int | None = None


class MapOf(msgspec.Struct, frozen=True, eq=False):
    """A map of `minimum` to `maximum` keys. A `secret` one is not shown in messages."""

    key: Text | OneOf
    value: Shape
    minimum: int | None = None
    maximum: int | None = None
    secret: bool = False


class Structure(msgspec.Struct, frozen=True, eq=False):
    """A structure: its members by name, and the names of those that must be there."""

    members: dict[str, Shape]
    required: tuple[str, ...] = ()


Shape: TypeAlias = Text | OneOf | Whole | Number | Flag | Time | Blob | ListOf | MapOf | Structure


# Where the model's range is wider than today's quota; see `miniλ.model`.
QUOTAS: dict[str, tuple[int, int]] = {
    "MemorySize": MEMORY_MB,
    "Timeout": TIMEOUT_SECONDS,
    "EphemeralStorageSize": EPHEMERAL_MB,
}


# Functions, versions, aliases

_REGION = r"(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}"
# A name may come with any beginning of its ARN.
_FUNCTION = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?(" + _REGION + r":)?(\d{12}:)?(function:)?"

FunctionName = Text(1, 140, _FUNCTION + r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?")
UnqualifiedFunctionName = Text(1, 140, _FUNCTION + r"([a-zA-Z0-9-_]+)")
NamespacedFunctionName = Text(
    1, 256, _FUNCTION + r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
FunctionUrlFunctionName = Text(
    1, 140, _FUNCTION + r"([a-zA-Z0-9-_]{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?"
)
Qualifier = Text(1, 128, r"(|[a-zA-Z0-9$_-]+)")
NumericLatestPublishedOrAliasQualifier = Text(1, 128, r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")
FunctionUrlQualifier = Text(1, 128, r"((?!^\d+$)^[0-9a-zA-Z-_]+$)")
Alias = Text(1, 128, r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)")
VersionWithLatestPublished = Text(1, 1024, r"(\$LATEST(\.PUBLISHED)?|[0-9]+)")
FunctionVersion = OneOf(("ALL",))
FunctionVersionLatestPublished = OneOf(("LATEST_PUBLISHED",))
MasterRegion = Text(1, 50, r"ALL|" + _REGION)
Description = Text(0, 256)
AliasRoutingConfiguration = Structure(
    {"AdditionalVersionWeights": MapOf(Text(1, 1024, r"[0-9]+"), Number(0.0, 1.0))}
)


# What is said of code and configuration

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
MemorySize = Whole(*QUOTAS["MemorySize"])
Timeout = Whole(*QUOTAS["Timeout"])
EphemeralStorage = Structure({"Size": Whole(*QUOTAS["EphemeralStorageSize"])}, ("Size",))
Handler = Text(0, 128, r"[^\s]+")
RoleArn = Text(0, 10000, r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+")
KMSKeyArn = Text(0, 10000, r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()")
ResourceArn = Text(0, 10000, r"(arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()")
CodeSigningConfigArn = Text(
    0,
    200,
    r"arn:(aws[a-zA-Z-]*)?:lambda:" + _REGION + r":\d{12}:code-signing-config:csc-[a-z0-9]{17}",
)
S3Bucket = Text(3, 63, r"[0-9A-Za-z\.\-_]*(?<!\.)")
S3Key = Text(1, 1024, r".*")
S3ObjectVersion = Text(1, 1024, r".*")
S3ObjectStorageMode = OneOf(("COPY", "REFERENCE"))
FunctionCode = Structure(
    {
        "ZipFile": Blob(),
        "S3Bucket": S3Bucket,
        "S3Key": S3Key,
        "S3ObjectVersion": S3ObjectVersion,
        "S3ObjectStorageMode": S3ObjectStorageMode,
        "ImageUri": Text(),
        "SourceKMSKeyArn": KMSKeyArn,
    }
)
PackageType = OneOf(("Zip", "Image"))
Environment = Structure(
    {"Variables": MapOf(Text(pattern=r"[a-zA-Z]([a-zA-Z0-9_])+"), Text(), secret=True)}
)
VpcConfig = Structure(
    {
        "SubnetIds": ListOf(Text(0, 1024, r"subnet-[0-9a-z]*"), 0, 16),
        "SecurityGroupIds": ListOf(Text(0, 1024, r"sg-[0-9a-zA-Z]*"), 0, 5),
        "Ipv6AllowedForDualStack": Flag(),
    }
)
DeadLetterConfig = Structure({"TargetArn": ResourceArn})
TracingConfig = Structure({"Mode": OneOf(("Active", "PassThrough"))})
FileSystemConfig = Structure(
    {
        "Arn": Text(
            0,
            256,
            r"arn:aws[a-zA-Z-]*:elasticfilesystem:"
            + _REGION
            + r":\d{12}:access-point/fsap-[a-f0-9]{17}$|^arn:aws[-a-z]*:s3files:[0-9a-z-:]+"
            r":file-system/fs-[0-9a-f]{17,40}/access-point/fsap-[0-9a-f]{17,40}",
        ),
        "LocalMountPath": Text(0, 160, r"/mnt/[a-zA-Z0-9-_.]+"),
        "S3FilesConfig": Structure({"DirectS3Read": OneOf(("ENABLED", "DISABLED", "AUTO"))}),
    },
    ("Arn", "LocalMountPath"),
)
FileSystemConfigList = ListOf(FileSystemConfig, 0, 1)
ImageConfig = Structure(
    {
        "EntryPoint": ListOf(Text(), 0, 1500),
        "Command": ListOf(Text(), 0, 1500),
        "WorkingDirectory": Text(0, 1000),
    }
)
SnapStart = Structure({"ApplyOn": OneOf(("PublishedVersions", "None"))})
LoggingConfig = Structure(
    {
        "LogFormat": OneOf(("JSON", "Text")),
        "ApplicationLogLevel": OneOf(("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")),
        "SystemLogLevel": OneOf(("DEBUG", "INFO", "WARN")),
        "LogGroup": Text(1, 512, r"[\.\-_/#A-Za-z0-9]+"),
    }
)
TenancyConfig = Structure({"TenantIsolationMode": OneOf(("PER_TENANT",))}, ("TenantIsolationMode",))
CapacityProviderConfig = Structure(
    {
        "LambdaManagedInstancesCapacityProviderConfig": Structure(
            {
                "CapacityProviderArn": Text(
                    1,
                    140,
                    r"arn:aws[a-zA-Z-]*:lambda:"
                    + _REGION
                    + r":\d{12}:capacity-provider:[a-zA-Z0-9-_]+",
                ),
                "PerExecutionEnvironmentMaxConcurrency": Whole(1, 1600),
                "ExecutionEnvironmentMemoryGiBPerVCpu": Number(2, 8),
            },
            ("CapacityProviderArn",),
        )
    },
    ("LambdaManagedInstancesCapacityProviderConfig",),
)
DurableConfig = Structure(
    {
        "KMSKeyArn": KMSKeyArn,
        "RetentionPeriodInDays": Whole(1, 90),
        "ExecutionTimeout": Whole(1, 31622400),
    }
)
FunctionRuntimeConfig = Structure(
    {
        "RuntimeArn": Text(48, 2048, r"arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:runtime/.+"),
        "RuntimeAlias": Text(1, 128),
    },
    ("RuntimeArn", "RuntimeAlias"),
)
AcceleratorConfig = Structure({"AcceleratorMemorySize": Whole()}, ("AcceleratorMemorySize",))
UpdateRuntimeOn = OneOf(("Auto", "Manual", "FunctionUpdate"))
RuntimeVersionArn = Text(
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
DurableExecutionName = Text(1, 64, r"[a-zA-Z0-9-_]+")
TenantId = Text(1, 256, r"[a-zA-Z0-9\._:\/=+\-@ ]+")


# Layers

LayerNameOrArn = Text(
    1,
    2048,
    r"(arn:(aws[a-zA-Z-]*)?:lambda:"
    + _REGION
    + r":\d{12}:layer:[a-zA-Z0-9-_]{1,140}|[a-zA-Z0-9-_]{1,140})",
)
LayerVersionArn = Text(
    1,
    2048,
    r"((arn:(aws[a-zA-Z-]*)?:lambda:"
    + _REGION
    + r":\d{12}:layer:[a-zA-Z0-9-_]+:[0-9]+)"
    + r"|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+))",
)
LayerVersionNumber = Whole(bits=64)
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


# Who may: tags, policies, URLs

TaggableResource = Text(
    1,
    10000,
    r"arn:(aws[a-zA-Z-]*):lambda:"
    + _REGION
    + r":\d{12}:(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?"
    r"|code-signing-config:csc-[a-z0-9]{17}"
    r"|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(capacity-provider|network-connector):[a-zA-Z0-9-_]{1,64})",
)
TagKey = Text(1, 128, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)")
Tags = MapOf(TagKey, Text(0, 256, r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"))
StatementId = Text(1, 100, r"([a-zA-Z0-9-_]+)")
NamespacedStatementId = Text(1, 100, r"([a-zA-Z0-9-_.]+)")
_ARN = r"arn:(aws[a-zA-Z0-9-]*):([a-zA-Z0-9\-])+:(" + _REGION + r")?:(\d{12})?:(.*)"
Arn = Text(0, 10000, _ARN)
OrganizationId = Text(0, 34, r"o-[a-z0-9]{10,32}")
FunctionUrlAuthType = OneOf(("NONE", "AWS_IAM"))
InvokeMode = OneOf(("BUFFERED", "RESPONSE_STREAM"))
HeadersList = ListOf(Text(0, 1024, r".*"), 0, 100)
Cors = Structure(
    {
        "AllowCredentials": Flag(),
        "AllowHeaders": HeadersList,
        "AllowMethods": ListOf(Text(0, 6, r".*"), 0, 6),
        "AllowOrigins": ListOf(Text(1, 253, r".*"), 0, 100),
        "ExposeHeaders": HeadersList,
        "MaxAge": Whole(0, 86400),
    }
)


# Where results go, and where events come from

DestinationArn = Text(0, 350, r"$|kafka://([^.]([a-zA-Z0-9\-_.]{0,248}))|" + _ARN)
DestinationConfig = Structure(
    {
        "OnSuccess": Structure({"Destination": DestinationArn}),
        "OnFailure": Structure({"Destination": DestinationArn}),
    }
)
UUIDString = Text(36, 36)
FilterCriteria = Structure({"Filters": ListOf(Structure({"Pattern": Text(0, 4096, r"[\s\S]*")}))})
EventSourceMappingMetricsConfig = Structure(
    {"Metrics": ListOf(OneOf(("EventCount", "ErrorCount", "KafkaMetrics")), 0, 3)}
)
EventSourceMappingLoggingConfig = Structure({"SystemLogLevel": OneOf(("DEBUG", "INFO", "WARN"))})
EventSourcePosition = OneOf(("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"))
ScalingConfig = Structure({"MaximumConcurrency": Whole(2, 1000)})
Topics = ListOf(Text(1, 249, r"[^.]([a-zA-Z0-9\-_.]+)"), 1, 1)
Queues = ListOf(Text(1, 1000, r"[\s\S]*"), 1, 1)
URI = Text(1, 200, r"[ a-zA-Z0-9-\/*:_+=.@-]*")
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
Endpoint = Text(
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
        "SchemaRegistryURI": Text(1, 10000, r"[a-zA-Z0-9-\/*:_+=.@-]*"),
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
        "DatabaseName": Text(1, 63, r"[^ /\.$\x22]*"),
        "CollectionName": Text(1, 57, r"(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)"),
        "FullDocument": OneOf(("UpdateLookup", "Default")),
    }
)
ProvisionedPollerConfig = Structure(
    {
        "MinimumPollers": Whole(1, 200),
        "MaximumPollers": Whole(1, 10000),
        "PollerGroupName": Text(0, 128, r"[a-zA-Z0-9-_]*"),
    }
)
