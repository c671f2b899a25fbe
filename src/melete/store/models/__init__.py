"""Tables of the database, one file for each group of them.

Times are seconds since the epoch. Text that is long or free is `Text`; names and ids have a length. There are no
foreign keys: events arrive in any order, from other machines too, and a row that came early must not stop the others.
"""

from melete.store.models._model import Model, table
from melete.store.models.access import AccessTokenRow, AuditRow, SignInRow
from melete.store.models.entities import (
    ENTITIES,
    ExperimentRow,
    HarnessProfileRow,
    ProviderRow,
    TaskCardRow,
    VariantRow,
)
from melete.store.models.jobs import JobGpuRow, JobRow, JobStepRow, JobWorkerRow
from melete.store.models.proof import ArtifactRow, MetricRollupRow
from melete.store.models.requests import (
    RequestContentRow,
    RequestEventRow,
    RequestOpenRow,
    RequestRow,
    SpendLogRow,
    SpoolPositionRow,
)
from melete.store.models.runs import RunRow
from melete.store.models.sessions import CredentialRow, SessionRow

__all__ = [
    "ENTITIES",
    "AccessTokenRow",
    "ArtifactRow",
    "AuditRow",
    "CredentialRow",
    "ExperimentRow",
    "HarnessProfileRow",
    "JobGpuRow",
    "JobRow",
    "JobStepRow",
    "JobWorkerRow",
    "MetricRollupRow",
    "Model",
    "ProviderRow",
    "RequestContentRow",
    "RequestEventRow",
    "RequestOpenRow",
    "RequestRow",
    "RunRow",
    "SessionRow",
    "SignInRow",
    "SpendLogRow",
    "SpoolPositionRow",
    "TaskCardRow",
    "VariantRow",
    "table",
]
