"""The values that steps, ports and adapters share, by topic. Frozen; they only hold what was read."""

from rehome_consumer.model.credentials import Credentials, Secret
from rehome_consumer.model.databases import (
    Backup,
    DatabaseFacts,
    Fence,
    Grant,
    OwnershipTag,
    RehearsalMark,
    RoleAttributes,
    RoleFacts,
    ServerFacts,
    rehearsal_role,
)
from rehome_consumer.model.fingerprint import (
    DEFINITIONS,
    EVERYTHING,
    Fingerprint,
    Named,
    Part,
    Scope,
    Spared,
)
from rehome_consumer.model.platform import (
    LARGEST_CPU,
    LONGEST_LIMIT,
    LONGEST_TIER,
    TERMINATED,
    Instance,
    Provisioned,
    Server,
)
from rehome_consumer.model.policy import Hours, NothingToDo, Policy
from rehome_consumer.model.runtime import CONF_UNSET, Conf, ConfKey, Healthy, LoginPart, Service, Task

__all__ = [
    "CONF_UNSET",
    "DEFINITIONS",
    "EVERYTHING",
    "LARGEST_CPU",
    "LONGEST_LIMIT",
    "LONGEST_TIER",
    "TERMINATED",
    "Backup",
    "Conf",
    "ConfKey",
    "Credentials",
    "DatabaseFacts",
    "Fence",
    "Fingerprint",
    "Grant",
    "Healthy",
    "Hours",
    "Instance",
    "LoginPart",
    "Named",
    "NothingToDo",
    "OwnershipTag",
    "Part",
    "Policy",
    "Provisioned",
    "RehearsalMark",
    "RoleAttributes",
    "RoleFacts",
    "Scope",
    "Secret",
    "Server",
    "ServerFacts",
    "Service",
    "Spared",
    "Task",
    "rehearsal_role",
]
