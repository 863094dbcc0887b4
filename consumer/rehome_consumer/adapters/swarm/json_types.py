"""The JSON of the engine's answers, as far as it is read; checked once, where it comes in.

Source: the engine's API, version 1.41. Everything else in an answer stays as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rehome_consumer.errors import Transient

_FIELDS_SHOWN: Final = 5
_PATH_SHOWN: Final = 120

Number = Annotated[int, Field(ge=0, le=2**63 - 1)]
Cpu = Annotated[int, Field(ge=0, lt=10_000 * 1_000_000_000)]
Memory = Annotated[int, Field(ge=0, lt=10**13)]


class _Part(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _DriverConfig(_Part):
    Options: dict[str, str] | None = None


class _VolumeOptions(_Part):
    DriverConfig: _DriverConfig | None = None


class _Mount(_Part):
    Type: str = "bind"
    Source: str = ""
    VolumeOptions: _VolumeOptions | None = None


class _HealthCheck(_Part):
    Test: list[str] | None = None


class _Container(_Part):
    Image: str = ""
    Mounts: list[_Mount] | None = None
    Env: list[str] | None = None
    StopGracePeriod: Number | None = None
    Healthcheck: _HealthCheck | None = None


class _Amounts(_Part):
    NanoCPUs: Cpu = 0
    MemoryBytes: Memory = 0


class _Resources(_Part):
    Limits: _Amounts | None = None
    Reservations: _Amounts | None = None


class _RestartPolicy(_Part):
    Condition: str = "any"
    MaxAttempts: Number | None = None


class _Platform(_Part):
    OS: str = ""
    Architecture: str = ""


class _Placement(_Part):
    Constraints: list[str] | None = None
    MaxReplicas: Number = 0
    Platforms: list[_Platform] | None = None


class _Template(_Part):
    Placement: _Placement | None = None
    ContainerSpec: _Container | None = None
    Resources: _Resources = _Resources()
    RestartPolicy: _RestartPolicy | None = None
    ForceUpdate: Number = 0


class _Replicated(_Part):
    Replicas: Number = 1


class _Mode(_Part):
    Replicated: _Replicated | None = None


class _Port(_Part):
    PublishMode: str | None = None
    PublishedPort: Number = 0
    Protocol: str = "tcp"


class _Endpoint(_Part):
    Ports: list[_Port] | None = None


class _Spec(_Part):
    Name: str = Field(min_length=1)
    Labels: dict[str, str] | None = None
    Mode: _Mode = _Mode()
    TaskTemplate: _Template
    EndpointSpec: _Endpoint | None = None
    UpdateConfig: dict[str, Any] | None = None


class _Version(_Part):
    Index: Number


class _UpdateStatus(_Part):
    State: str = ""
    Message: str = ""


class _Service(_Part):
    ID: str = Field(min_length=1)
    Version: _Version
    Spec: _Spec
    UpdateStatus: _UpdateStatus | None = None


class _ContainerStatus(_Part):
    ContainerID: str = ""
    ExitCode: int | None = None


class _Status(_Part):
    State: str = "new"
    Err: str = ""
    ContainerStatus: _ContainerStatus | None = None


class _NetworkSpec(_Part):
    Ingress: bool = False


class _Network(_Part):
    Spec: _NetworkSpec = _NetworkSpec()


class _Attachment(_Part):
    Network: _Network = _Network()
    Addresses: list[str] | None = None


class _Task(_Part):
    ID: str = Field(min_length=1)
    Status: _Status = _Status()
    DesiredState: str = ""
    NodeID: str = ""
    ServiceID: str = ""
    CreatedAt: str = ""
    Spec: _Template = _Template()
    NetworksAttachments: list[_Attachment] | None = None


class _NodeSpec(_Part):
    Labels: dict[str, str] | None = None
    Role: str = ""
    Availability: str = ""


class _Engine(_Part):
    Labels: dict[str, str] | None = None


class _Description(_Part):
    Hostname: str = ""
    Platform: _Platform = _Platform()
    Resources: _Amounts = _Amounts()
    Engine: _Engine = _Engine()


class _NodeStatus(_Part):
    State: str = ""
    Addr: str = ""


class _Node(_Part):
    ID: str = Field(min_length=1)
    Spec: _NodeSpec = _NodeSpec()
    Description: _Description = _Description()
    Status: _NodeStatus = _NodeStatus()


class _VersionAnswer(_Part):
    ApiVersion: str = Field(pattern=r"^[0-9]{1,3}\.[0-9]{1,4}$")
    Version: str | None = None
    MinAPIVersion: str | None = None


class _Running(_Part):
    Id: str = Field(min_length=1)


class _Swarm(_Part):
    NodeID: str = ""
    LocalNodeState: str = ""
    ControlAvailable: bool = False


class _Info(_Part):
    Swarm: _Swarm = _Swarm()


class BeforeResize(_Part):
    """What a resize saves in a label: these parts of the definition as they were before."""

    UpdateConfig: dict[str, Any] | None
    Resources: dict[str, Any] | None


SERVICE: Final = TypeAdapter(_Service)
TASK: Final = TypeAdapter(_Task)
NODE: Final = TypeAdapter(_Node)
VERSION: Final = TypeAdapter(_VersionAnswer)
CONTAINERS: Final = TypeAdapter(list[_Running])
INFO: Final = TypeAdapter(_Info)
LIST: Final = TypeAdapter(list[Any])


def checked(expected: TypeAdapter[Any], answer: Any) -> Any:
    """The answer, unchanged.

    Raises:
        Transient: it is not of this type; the error names fields only, since a definition holds passwords.
    """
    try:
        expected.validate_python(answer)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, item["loc"]))[:_PATH_SHOWN] or "body" for item in error.errors()})
        raise Transient(
            f"the Docker engine's answer is not as its API says, in: {', '.join(wrong[:_FIELDS_SHOWN])}"
        ) from None
    return answer
