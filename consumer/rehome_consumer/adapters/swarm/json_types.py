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


class _HealthCheck(_Part):
    Test: list[str] | None = None


class _Container(_Part):
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


class _Template(_Part):
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


class _Service(_Part):
    ID: str = Field(min_length=1)
    Version: _Version
    Spec: _Spec


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
    CreatedAt: str = ""
    Spec: dict[str, Any] = Field(default_factory=dict)
    NetworksAttachments: list[_Attachment] | None = None


class _Running(_Part):
    Id: str = Field(min_length=1)


class _Swarm(_Part):
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
