// Package temporal runs fleets on Temporal: a cell is baked by a workflow whose activities
// are the stages of its run, so that it survives restarts of the workers and the service.
package temporal

import (
	"crypto/sha256"
	"encoding/hex"

	"go.temporal.io/sdk/temporal"

	"bake/fleet"
)

// The names of workflows, activities, queries, updates and signals. They must not
// change, because histories contain them.
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

// workflowQueue returns the task queue of the workflows of a fleet, and of activities
// without an account. All queues contain the name of the fleet, so that a worker only gets
// tasks of fleets that it works for.
func workflowQueue(name string) string { return "bake/" + name }

// machineQueue returns the task queue of activities that work on the machine of a cell.
func machineQueue(c fleet.Cell) string {
	return workflowQueue(c.Fleet) + "/" + c.Account + "/" + c.Region
}

// apiQueue returns the task queue of a cell's short stages that only call the API.
func apiQueue(c fleet.Cell) string { return machineQueue(c) + "/api" }

// promptQueue returns the task queue of activities for a cell between and after its
// stages, which must not wait for stages of other cells: queries of images, teardown,
// approval and promotion. The service does not limit its rate.
func promptQueue(c fleet.Cell) string { return machineQueue(c) + "/prompt" }

// fleetID returns the id of a fleet's workflow, which is also the prefix of the id of its
// schedule.
func fleetID(name string) string { return "fleet/" + name }

// janitorID returns the id of the schedule, and the prefix of the id of the workflow, which
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

	// byTemplate is the search attribute that distinguishes schedules of different
	// templates.
	byTemplate = temporal.NewSearchAttributeKeyKeyword("BakeTemplate")
)

// attributeNames are the names of all search attributes.
var attributeNames = []string{"BakeAccount", "BakeFleet", "BakeImage", "BakePhase", "BakeRegion", "BakeResult", "BakeTemplate"}

// templateOf returns an identifier of the template of a fleet. All users of the fleet have
// the template at the same path.
func templateOf(f *fleet.Fleet) string {
	sum := sha256.Sum256([]byte(f.Dir))
	return hex.EncodeToString(sum[:16])
}

// aboutSchedule returns the search attributes of the schedules of a fleet.
func aboutSchedule(f *fleet.Fleet) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(byFleet.ValueSet(f.Name), byTemplate.ValueSet(templateOf(f)))
}

// about returns the search attributes of the workflow that bakes a cell.
func about(c fleet.Cell) temporal.SearchAttributes {
	return temporal.NewSearchAttributes(byFleet.ValueSet(c.Fleet), byImage.ValueSet(c.Image),
		byAccount.ValueSet(c.Account), byRegion.ValueSet(c.Region), byPhase.ValueSet(string(fleet.StateWaiting)))
}
