"""The right that each of Dagster's GraphQL mutations needs. Unlisted ones, as of a newer Dagster, are refused."""

from collections.abc import Mapping

from dagster_backfills.instance.roles import Right

_RIGHTS = {
    Right.view: "logTelemetry setNuxSeen",
    # Repeatable or stoppable, and without loss of data. A job can require a higher right with its tag RIGHT_TAG.
    Right.launch: """
        launchRun launchPipelineExecution launchMultipleRuns launchRunReexecution launchPipelineReexecution
        terminateRun terminatePipelineExecution terminateRuns
        launchPartitionBackfill resumePartitionBackfill reexecutePartitionBackfill cancelPartitionBackfill
        startSchedule stopRunningSchedule resetSchedule scheduleDryRun
        startSensor stopSensor resetSensor setSensorCursor sensorDryRun
        addDynamicPartition reportRunlessAssetEvents reportAssetCheckEvaluations
    """,
    # Deletes history or affects the whole instance.
    Right.admin: """
        deleteRun deletePipelineRun wipeAssets deleteDynamicPartitions
        reloadWorkspace reloadRepositoryLocation shutdownRepositoryLocation
        setAppManagedComponent deleteAppManagedComponent refreshComponentState setAutoMaterializePaused
        setConcurrencyLimit deleteConcurrencyLimit freeConcurrencySlots freeConcurrencySlotsForRun
    """,
}
RIGHTS: Mapping[str, Right] = {name: right for right, names in _RIGHTS.items() for name in names.split()}

# Tags of a job: its domain, and the right needed to launch it if that is higher than `launch`.
DOMAIN_TAG, RIGHT_TAG = "backfills/domain", "backfills/right"
