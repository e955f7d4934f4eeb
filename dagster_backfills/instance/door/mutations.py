"""What right each of Dagster's mutations needs. One that is not here is refused: a new release may bring some."""

from collections.abc import Mapping

from dagster_backfills.roles import Right

_RIGHTS = {
    Right.look: "logTelemetry setNuxSeen",
    # What may be done again, or stopped, and loses nothing. A job may ask for more: its tag RIGHT_TAG.
    Right.launch: """
        launchRun launchPipelineExecution launchMultipleRuns launchRunReexecution launchPipelineReexecution
        terminateRun terminatePipelineExecution terminateRuns
        launchPartitionBackfill resumePartitionBackfill reexecutePartitionBackfill cancelPartitionBackfill
        startSchedule stopRunningSchedule resetSchedule scheduleDryRun
        startSensor stopSensor resetSensor setSensorCursor sensorDryRun
        addDynamicPartition reportRunlessAssetEvents reportAssetCheckEvaluations
    """,
    # What removes history, or concerns the whole instance.
    Right.admin: """
        deleteRun deletePipelineRun wipeAssets deleteDynamicPartitions
        reloadWorkspace reloadRepositoryLocation shutdownRepositoryLocation
        setAppManagedComponent deleteAppManagedComponent refreshComponentState setAutoMaterializePaused
        setConcurrencyLimit deleteConcurrencyLimit freeConcurrencySlots freeConcurrencySlotsForRun
    """,
}
RIGHTS: Mapping[str, Right] = {name: right for right, names in _RIGHTS.items() for name in names.split()}

# On a job: its domain, and the right that launching it needs where that is more than `launch`.
DOMAIN_TAG, RIGHT_TAG = "backfills/domain", "backfills/right"
