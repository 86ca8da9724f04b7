"""JSON schemas for the files of cluster/: the fields that these files use, and no others.

Stricter than Ray's own check, which accepts any key in the part that is passed to a cloud; for
KubeRay a small part of its resource definitions. To use a new field, add it here first, from the
vendor's reference.
"""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}


def fields(*required: str, **allowed: Schema) -> Schema:
    """A mapping with these keys only."""
    return {
        "type": "object",
        "properties": allowed,
        "required": list(required),
        "additionalProperties": False,
    }


def table(of: Schema) -> Schema:
    """A mapping with arbitrary keys."""
    return {"type": "object", "additionalProperties": of}


def several(of: Schema) -> Schema:
    """A list of at least one item."""
    return {"type": "array", "items": of, "minItems": 1}


def one_of(*values: object) -> Schema:
    return {"enum": list(values)}


COMMANDS = several(TEXT)
COMMON = {
    "cluster_name": TEXT,
    "max_workers": NUMBER,
    "idle_timeout_minutes": NUMBER,
    "file_mounts": table(TEXT),
    "rsync_exclude": several(TEXT),
    "setup_commands": COMMANDS,
    "head_setup_commands": COMMANDS,
    "head_start_ray_commands": COMMANDS,
    "worker_start_ray_commands": COMMANDS,
}


def _cloud(provider: Schema, node: Schema) -> Schema:
    node_type = fields(
        "resources",
        "node_config",
        min_workers=NUMBER,
        max_workers=NUMBER,
        resources=fields(CPU=NUMBER, GPU=NUMBER),
        node_config=node,
    )
    return fields(
        *("provider", "auth", "head_node_type", "available_node_types"),
        provider=provider,
        auth=fields("ssh_user", ssh_user=TEXT),
        head_node_type=TEXT,
        available_node_types=fields("head", "worker", head=node_type, worker=node_type),
        **COMMON,
    )


AWS = _cloud(
    fields("type", "region", type=one_of("aws"), region=TEXT, cache_stopped_nodes=BOOLEAN),
    # The parameters of EC2's RunInstances.
    fields(
        *("InstanceType", "ImageId"),
        InstanceType={"type": "string", "pattern": r"^[a-z0-9-]+\.[a-z0-9]+$"},
        ImageId={"type": "string", "pattern": "^(ami-|resolve:ssm:/)"},
        BlockDeviceMappings=several(
            fields(
                "DeviceName",
                "Ebs",
                DeviceName=TEXT,
                Ebs=fields("VolumeSize", VolumeSize=NUMBER, VolumeType=one_of("gp3")),
            )
        ),
        MetadataOptions=fields(HttpTokens=one_of("required")),
        IamInstanceProfile=fields("Name", Name=TEXT),
        InstanceMarketOptions=fields(MarketType=one_of("spot")),
    ),
)

GCP = _cloud(
    fields(
        *("type", "region", "availability_zone", "project_id"),
        type=one_of("gcp"),
        region=TEXT,
        availability_zone=TEXT,
        project_id=TEXT,
        cache_stopped_nodes=BOOLEAN,
    ),
    # A machine of Compute Engine's instances.insert.
    fields(
        *("machineType", "disks"),
        machineType=TEXT,
        disks=several(
            fields(
                boot=BOOLEAN,
                autoDelete=BOOLEAN,
                type=one_of("PERSISTENT"),
                initializeParams=fields(
                    *("diskSizeGb", "diskType", "sourceImage"),
                    diskSizeGb=NUMBER,
                    diskType={"type": "string", "pattern": "^zones/[a-z0-9-]+/diskTypes/[a-z-]+$"},
                    sourceImage=TEXT,
                ),
            )
        ),
        serviceAccounts=several(fields("email", "scopes", email=TEXT, scopes=several(TEXT))),
        scheduling=fields(
            provisioningModel=one_of("SPOT"),
            instanceTerminationAction=one_of("DELETE", "STOP"),
            onHostMaintenance=one_of("TERMINATE"),
        ),
    ),
)

ON_PREMISE = fields(
    *("provider", "auth"),
    provider=fields(
        *("type", "head_ip", "worker_ips"),
        type=one_of("local"),
        head_ip=TEXT,
        worker_ips=several(TEXT),
    ),
    auth=fields("ssh_user", "ssh_private_key", ssh_user=TEXT, ssh_private_key=TEXT),
    **COMMON,
)

QUANTITIES = {"cpu": TEXT, "memory": TEXT, "nvidia.com/gpu": TEXT}
POD = fields(
    "spec",
    spec=fields(
        *("containers", "restartPolicy"),
        restartPolicy=one_of("Never"),
        serviceAccountName=TEXT,
        nodeSelector=table(TEXT),
        tolerations=several(
            fields("key", key=TEXT, operator=one_of("Exists"), effect=one_of("NoSchedule"))
        ),
        containers=several(
            fields(
                *("name", "image", "resources"),
                name=TEXT,
                image=TEXT,
                env=several(fields("name", "value", name=TEXT, value=TEXT)),
                resources=fields(requests=fields(**QUANTITIES), limits=fields(**QUANTITIES)),
                volumeMounts=several(fields("name", "mountPath", name=TEXT, mountPath=TEXT)),
            )
        ),
        volumes=several(
            fields("name", name=TEXT, emptyDir=fields(medium=one_of("Memory", ""), sizeLimit=TEXT))
        ),
    ),
)
RAY_CLUSTER_SPEC = fields(
    *("rayVersion", "headGroupSpec", "workerGroupSpecs", "authOptions"),
    rayVersion=TEXT,
    authOptions=fields("mode", mode=one_of("token")),
    enableInTreeAutoscaling=BOOLEAN,
    autoscalerOptions=fields(version=one_of("v2"), idleTimeoutSeconds=NUMBER),
    headGroupSpec=fields("rayStartParams", "template", rayStartParams=table(TEXT), template=POD),
    workerGroupSpecs=several(
        fields(
            *("groupName", "rayStartParams", "template"),
            groupName=TEXT,
            replicas=NUMBER,
            minReplicas=NUMBER,
            maxReplicas=NUMBER,
            rayStartParams=table(TEXT),
            template=POD,
        )
    ),
)
RAY_CLUSTER = fields(
    *("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayCluster"),
    metadata=fields("name", name=TEXT),
    spec=RAY_CLUSTER_SPEC,
)
RAY_JOB = fields(
    *("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayJob"),
    metadata=fields(generateName=TEXT, name=TEXT),
    spec=fields(
        *("entrypoint", "rayClusterSpec"),
        entrypoint=TEXT,
        submissionMode=one_of("K8sJobMode"),
        backoffLimit=NUMBER,
        shutdownAfterJobFinishes=BOOLEAN,
        ttlSecondsAfterFinished=NUMBER,
        rayClusterSpec=RAY_CLUSTER_SPEC,
    ),
)

SCHEMAS = {
    "cluster.yaml": AWS,
    "gcp.yaml": GCP,
    "on-premise.yaml": ON_PREMISE,
    "kuberay/raycluster.yaml": RAY_CLUSTER,
    "kuberay/rayjob.yaml": RAY_JOB,
}
