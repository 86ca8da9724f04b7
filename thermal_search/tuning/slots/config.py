"""What a slot and its workers are told when they start. Plain data: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thermal_search.choices import FeaturesPrecision
from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialPlan

if TYPE_CHECKING:
    from thermal_search.architectures.from_file import SourceFile
    from thermal_search.data.ray_dataset import WorkerShard

Strategy = Literal["PACK", "STRICT_PACK", "SPREAD"]
Backend = Literal["nccl", "gloo"]


@dataclass(frozen=True)
class SlotPlacement:
    """How many slots a search has, and what Ray reserves for each of their workers."""

    slots: int
    resources_per_worker: dict[str, float]
    threads_per_worker: int
    strategy: Strategy
    """The strategy of each slot's placement group: how its workers spread over nodes."""

    backend: Backend
    """The torch.distributed backend that averages gradients between the workers of one slot."""

    @property
    def gpu_share(self) -> float:
        """The part of a GPU that each worker has, above 0 .. 1; 1 without GPUs too."""
        gpus = self.resources_per_worker.get("GPU", 0.0)
        return gpus if 0 < gpus < 1 else 1.0

    @property
    def workers_per_gpu(self) -> int:
        """How many workers share a GPU; 1 without GPUs too."""
        return int(1 / self.gpu_share + 1e-9)


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """What a slot's workers keep from trial to trial."""

    shards: "list[WorkerShard]"
    """The data of each worker."""

    statistics: Location
    """The folder that caches what is measured of the dataset."""

    validation_count: int
    """Validation pairs over all workers."""

    test_count: int
    """Test pairs over all workers; 0 if trials are not evaluated on them."""

    features: str
    features_precision: FeaturesPrecision
    inception_weights: Path | None
    lpips_weights: Path | None
    protocol: Mapping[str, str | int]
    """The search's, for the validation split. A worker with other weights must not evaluate."""

    threads: int
    """CPU threads of each worker."""

    gpu_share: float = 1.0
    """The part of a GPU that each worker has, above 0 .. 1; 1 without GPUs too."""

    own_architectures: "tuple[SourceFile, ...]" = ()
    """The files of architectures that are not in the package, for machines that lack them."""


@dataclass(frozen=True, kw_only=True)
class SlotConfig:
    """What every slot of a search has in common."""

    plan: Any
    """Ray's reference to the SlotPlan, which only workers read."""

    workers: int
    placement: SlotPlacement
    storage: Location
    """Where Ray Train keeps its own files."""

    mps: Any = None
    """The actor that knows how workers share a GPU (`mps_keeper`); None if they share none."""

    trial_template: TrialPlan
    """The plan of every trial but for its id, architecture, parameters, budget and, of a
    retraining, seed. Its folder is the one that holds the trials' folders."""

    @property
    def placement_groups(self) -> Location:
        """The folder of the ids by which a slot frees what a killed one had reserved."""
        return self.storage / "placement-groups"


@dataclass(frozen=True)
class WorkerConfig:
    """What Ray Train passes to each worker."""

    plan: Any
    """Ray's reference to the SlotPlan."""

    mailbox: Any
    placement_group_file: Location
    """Where the first worker writes the id of the group's placement group."""

    mps: Any = None
    """As in SlotConfig."""
