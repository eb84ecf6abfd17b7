// Package temporal runs fleets on Temporal: what a cell is baked by is a workflow whose
// activities are the stages of its run, so that it outlives the workers and the service.
package temporal

import (
	"crypto/sha256"
	"encoding/hex"

	"go.temporal.io/sdk/temporal"

	"bake/fleet"
)

// The names of workflows, activities, queries, updates and signals: histories hold them.
const (
	fleetWorkflow    = "Fleet"
	imageWorkflow    = "Image"
	bakeWorkflow     = "Bake"
	approvalWorkflow = "Approval"
	janitorWorkflow  = "Janitor"
	leftWorkflow     = "Left"

	stageActivity     = "Stage"
	availableActivity = "Available"
	teardownActivity  = "Teardown"
	approveActivity   = "Approve"
	promoteActivity   = "Promote"
	notifyActivity    = "Notify"
	pauseActivity     = "PauseSchedule"
	orphansActivity   = "Orphans"

	statusQuery   = "status"
	partsQuery    = "parts"
	pauseSignal   = "pause"
	limitsSignal  = "limits"
	freedSignal   = "freed"
	againSignal   = "again"
	approveUpdate = "approve"
)

// workflowQueue is the task queue of the workflows of a fleet, and of activities that belong to
// no account. All queues have the name of the fleet, so that a worker gets nothing to do of
// fleets that it does not work for.
func workflowQueue(name string) string { return "bake/" + name }

// machineQueue is the task queue of what works on the machine of a cell.
func machineQueue(c fleet.Cell) string {
	return workflowQueue(c.Fleet) + "/" + c.Account + "/" + c.Region
}

// apiQueue is the task queue of stages of a cell that call the API and are over soon.
func apiQueue(c fleet.Cell) string { return machineQueue(c) + "/api" }

// promptQueue is the task queue of what is done for a cell between and after its stages, and
// must not wait until these have been: looks at images, teardown, approval and promotion. The service does
// not hold it to a rate.
func promptQueue(c fleet.Cell) string { return machineQueue(c) + "/prompt" }

// fleetID is the id of the workflow, and begins that of the schedule, of a fleet.
func fleetID(name string) string { return "fleet/" + name }

// janitorID is the id of the schedule, and the prefix of the id of the workflow, which
// deletes what terminated workflows of a fleet have left.
func janitorID(name string) string { return "janitor/" + name }

// The search attributes of workflows.
var (
	byFleet   = temporal.NewSearchAttributeKeyKeyword("BakeFleet")
	byImage   = temporal.NewSearchAttributeKeyKeyword("BakeImage")
	byAccount = temporal.NewSearchAttributeKeyKeyword("BakeAccount")
	byRegion  = temporal.NewSearchAttributeKeyKeyword("BakeRegion")
	byPhase   = temporal.NewSearchAttributeKeyKeyword("BakePhase")
	byResult  = temporal.NewSearchAttributeKeyKeyword("BakeResult")

	// byTemplate is that of schedules, which are so told from those of other templates.
	byTemplate = temporal.NewSearchAttributeKeyKeyword("BakeTemplate")
)

// attributeNames are all of them.
var attributeNames = []string{"BakeAccount", "BakeFleet", "BakeImage", "BakePhase", "BakeRegion", "BakeResult", "BakeTemplate"}

// templateOf tells the template of a fleet, which all who use it have at the same path, from
// others.
func templateOf(f *fleet.Fleet) string {
	sum := sha256.Sum256([]byte(f.Dir))
	return hex.EncodeToString(sum[:16])
}

// aboutSchedule are the search attributes of the schedules of a fleet.
func aboutSchedule(f *fleet.Fleet) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(byFleet.ValueSet(f.Name), byTemplate.ValueSet(templateOf(f)))
}

// about are the search attributes of the workflow that bakes a cell.
func about(c fleet.Cell) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(byFleet.ValueSet(c.Fleet), byImage.ValueSet(c.Image),
		byAccount.ValueSet(c.Account), byRegion.ValueSet(c.Region), byPhase.ValueSet(string(fleet.StateWaiting)))
}
